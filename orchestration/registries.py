"""Which registry an experiment registers in: the one place that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from assets.experiment import Experiment
from assets.stage import Stage
from resources.registry.local import LocalRegistry
from resources.registry.registry import Registry, Version
from resources.store.store import Store


class Registries:
    """The registries of experiments, with what this machine knows of them in `home`; opening one asks nobody."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._local = LocalRegistry(home)
        self._opened: dict[object, Registry] = {}
        self._checked: list[Registry] = []

    def of(self, experiment: Experiment) -> Registry:
        """The registry that the experiment names; a ConfigurationError when nothing says which workspace."""
        if experiment.registered_model.registry == "local":
            return self._local
        from resources.azure.workspace import AzureWorkspace, find_workspace
        from resources.registry.azureml import AzureMLRegistry

        name = find_workspace(experiment.azure.model_dump(), experiment.root)
        if name not in self._opened:
            self._opened[name] = AzureMLRegistry(AzureWorkspace(name), self._home, Store(self._home))
        return self._opened[name]

    def check(self, experiment: Experiment) -> None:
        """Return when the experiment's model can be registered; asks its registry once, an error says why it cannot."""
        registry = self.of(experiment)
        if registry not in self._checked:
            registry.check()
            self._checked.append(registry)

    def is_published(self, stage: Stage, inputs: Mapping[str, str]) -> bool:
        """Whether nothing of `stage` is left to register, as far as this machine knows."""
        return not stage.registers or stage.is_published(inputs, self.of(stage.experiment))

    def publish(self, stage: Stage, folder: Path, inputs: Mapping[str, str]) -> Version | None:
        """Register what `stage` left in `folder` where it is not yet; returns the version, None for other stages."""
        return stage.publish(folder, inputs, self.of(stage.experiment)) if stage.registers else None
