"""The text that AWQ calibrates and measures on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from assets.stage import Attempt, Source
from resources.calibration_text import PYTHON_DOCS, read
from resources.errors import ConfigurationError
from resources.store.digests import FileDigests, sha256_of


class CalibrationText(Source):
    """text.txt: the topics that the interpreter ships, or the bytes of the text file that the experiment names."""

    name = "calibration_text"
    heavy = False

    def fields(self) -> Mapping[str, Any]:
        return {}

    def identity(self, digests: FileDigests) -> str:
        file = self._file()
        if file is None:
            return _python_docs_digest()
        if not file.is_file():
            place = f"{self.experiment.name}.yaml: awq_model.calibration_text"
            raise ConfigurationError(place, f"no file {file}", f"{PYTHON_DOCS} or a UTF-8 text file")
        return digests.file(file)

    def produce(self, attempt: Attempt) -> None:
        text = self._text()
        file = self._file()
        target = attempt.folder / "text.txt"
        if file is None:
            target.write_bytes(text.encode())
        else:
            shutil.copyfile(file, target)

    def holds(self, folder: Path, identity: str) -> bool:
        return sha256_of(folder / "text.txt") == identity

    def text_file(self) -> Path | None:
        return self._file()

    def _file(self) -> Path | None:
        named = self.experiment.awq_model.calibration_text
        return None if named == PYTHON_DOCS else self.experiment.path(named)

    def _text(self) -> str:
        return read(self.experiment.awq_model.calibration_text, self.experiment.root)


@cache
def _python_docs_digest() -> str:
    return hashlib.sha256(read(PYTHON_DOCS, Path()).encode()).hexdigest()
