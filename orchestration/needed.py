"""What `press store gc` must keep: what registered models, runs in progress and pinned experiments are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from assets.experiment import list_experiments, open_experiment
from assets.registered_model import RegisteredModel
from orchestration.recorded import open_records
from orchestration.turns import Turns
from resources.registry.azureml import recorded_workspaces
from resources.registry.local import LocalRegistry
from resources.store.manifest import DIGEST
from resources.store.store import Store


@dataclass(frozen=True)
class Needed:
    """Digests of artifacts that must stay, everything they were made from included.

    used_since: artifacts used at this time (seconds since 1970) or later stay, too; None when no run is in progress.
    """

    digests: frozenset[str]
    used_since: float | None


@contextmanager
def hold_needed(home: Path, store: Store) -> Iterator[Needed]:
    """What is needed now; no run begins inside the block, so it stays so.

    An experiment file that cannot be read is a ConfigurationError: it might be pinned.
    """
    turns = Turns(home)
    pinned = [name for name in list_experiments() if open_experiment(name).store.pinned]
    with ExitStack() as stack:
        busy: list[str] = []
        for experiment in sorted({*list_experiments(), *turns.known()}):
            if not stack.enter_context(turns.take_if_free(experiment)):
                busy.append(experiment)
        digests = {*_registered(home, store), *_recorded(home, {*pinned, *busy})}
        began = min((turns.began(experiment) for experiment in busy), default=None)
        yield Needed(frozenset(store.ancestors(digests)), began)


def _registered(home: Path, store: Store) -> Iterator[str]:
    """The digests that versions of registered models name, their content and lineage, and their registrations."""
    contents: set[str] = set()
    for registry in (LocalRegistry(home), *recorded_workspaces(home)):
        for version in (version for name in registry.names() for version in registry.versions(name)):
            contents.add(version.digest)
            yield from (value for value in version.tags.values() if DIGEST.fullmatch(value))
    yield from contents
    for entry in store.entries():
        if entry.ingredients["recipe"] == RegisteredModel.name and entry.ingredients["input.onnx_model"] in contents:
            yield entry.digest


def _recorded(home: Path, experiments: set[str]) -> Iterator[str]:
    """What Dagster last recorded of `experiments`."""
    with open_records(home) as records:
        for history in records.histories(sorted(experiments)).values():
            yield from (recorded.data_version for recorded in history.stages.values())
