"""Which shared store an experiment looks in and pushes to: the one place that decides it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from assets.experiment import Experiment
from resources.errors import ConfigurationError
from resources.store.store import Store

if TYPE_CHECKING:
    from resources.azure.shared_store import SharedStore


class Remotes:
    """The shared stores of experiments; opening one asks nobody.

    `use` says whether they are used at all, `push` that what is computed goes there whatever the experiment says.
    """

    def __init__(self, home: Path, use: bool = True, push: bool = False) -> None:
        self._store = Store(home)
        self._use = use
        self._push = push
        self._opened: dict[tuple[str, str, str], SharedStore] = {}
        self._checked: set[tuple[SharedStore, bool]] = set()

    def of(self, experiment: Experiment) -> SharedStore | None:
        """The shared store that the experiment names; None where it names none or none is to be used."""
        spec = experiment.store.remote
        if spec is None or not self._use:
            return None
        from resources.azure.shared_store import open_shared_store

        place = (spec.account_url, spec.container, spec.prefix)
        if place not in self._opened:
            self._opened[place] = open_shared_store(*place, self._store)
        return self._opened[place]

    def named(self, experiment: Experiment) -> SharedStore:
        """The same; a ConfigurationError where the experiment names none."""
        remote = self.of(experiment)
        if remote is None:
            place = f"experiment {experiment.name}, store.remote"
            raise ConfigurationError(place, "nothing", "account_url and container of a shared store")
        return remote

    def pushes(self, experiment: Experiment) -> bool:
        """Whether what is computed for the experiment goes to its shared store."""
        spec = experiment.store.remote
        return spec is not None and self._use and (self._push or spec.push)

    def check(self, experiment: Experiment) -> None:
        """Return when the experiment's shared store can be used as it is to be; asks once, an error says why not."""
        remote = self.named(experiment) if self._push else self.of(experiment)
        if remote is None or (remote, self.pushes(experiment)) in self._checked:
            return
        remote.check(self.pushes(experiment))
        self._checked.add((remote, self.pushes(experiment)))
