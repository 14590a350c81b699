"""The base model that an experiment presses, as a float Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.experiment import Experiment
from assets.stage import Attempt, Source, tool_version
from resources.base_models import AzureMLModel, BaseModelPlace, FolderModel, HuggingFaceModel, PackageModel
from resources.store.digests import FileDigests


class BaseModel(Source):
    """The base model from the place that `base_model` names; where it came from does not count, what it is does."""

    name = "base_model"
    heavy = True

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self.place = _place(experiment)

    def fields(self) -> Mapping[str, Any]:
        return {"trust_remote_code": self.experiment.base_model.trust_remote_code}

    def own_ingredients(self) -> dict[str, Any]:
        return super().own_ingredients() | {f"tool.{tool}": tool_version(tool) for tool in self.place.tools}

    def identity(self, digests: FileDigests) -> str:
        return self.place.identity(digests)

    def produce(self, attempt: Attempt) -> None:
        self.place.fetch(attempt.folder, attempt.scratch, attempt.progress)

    def holds(self, folder: Path, identity: str) -> bool:
        return self.place.holds(folder, identity)


def _place(experiment: Experiment) -> BaseModelPlace:
    spec = experiment.base_model
    key = f"{experiment.name}.yaml: base_model"
    if spec.package is not None:
        return PackageModel(spec.package, spec.file, key)
    if spec.folder is not None:
        return FolderModel(experiment.path(spec.folder), spec.trust_remote_code, key)
    if spec.azureml is not None:
        return AzureMLModel(spec.azureml, experiment.azure.model_dump(), experiment.root, spec.trust_remote_code, key)
    assert spec.huggingface is not None and spec.revision is not None, "BaseModelSpec accepts exactly one place"
    return HuggingFaceModel(spec.huggingface, spec.revision, spec.trust_remote_code, key)
