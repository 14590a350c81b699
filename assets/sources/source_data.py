"""The source data file of an experiment, as it lies there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.stage import Attempt, Source
from resources.errors import ConfigurationError
from resources.store.digests import FileDigests, sha256_of


class SourceData(Source):
    """source.jsonl: the bytes of the file that `dataset.path` names."""

    name = "source_data"
    heavy = False

    def fields(self) -> Mapping[str, Any]:
        return {}

    def identity(self, digests: FileDigests) -> str:
        return digests.file(self._file())

    def produce(self, attempt: Attempt) -> None:
        shutil.copyfile(self._file(), attempt.folder / "source.jsonl")

    def holds(self, folder: Path, identity: str) -> bool:
        return sha256_of(folder / "source.jsonl") == identity

    def text_file(self) -> Path:
        return self._file()

    def _file(self) -> Path:
        file = self.experiment.path(self.experiment.dataset.path)
        if not file.is_file():
            place = f"{self.experiment.name}.yaml: dataset.path"
            raise ConfigurationError(
                place, f"no file {file}", 'a UTF-8 file of JSON lines, {"prompt": …, "response": …}'
            )
        return file
