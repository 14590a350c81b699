"""press store push and pull: what an experiment is made of now, sent to its shared store or brought from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from assets.experiment import Experiment
from assets.recipes import open_sources, open_stages
from assets.stage import Recipe
from resources.azure.shared_store import SharedStore
from resources.store.entry import Entry
from resources.store.keys import Key
from resources.store.store import Store

Outcome = Literal["sent", "there", "restored", "here", "missing"]


@dataclass(frozen=True)
class Shared:
    """What became of one stage or part.

    outcome: "sent" or "there" of a push, "restored" or "here" of a pull, "missing" where there was nothing to move.
    bytes: of its files; moved: those that were sent or received. note: what else is to be said.
    """

    recipe: str
    outcome: Outcome
    key: str | None = None
    digest: str | None = None
    bytes: int = 0
    moved: int = 0
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def push_experiment(experiment: Experiment, store: Store, remote: SharedStore, verify: bool) -> Iterator[Shared]:
    """Send what the experiment is made of now and is in the store; yields each stage and part once it is there."""
    remote.check(push=True)
    for recipe, key, entry in _made_of(experiment, store, store.find, with_parts=True):
        if entry is None:
            yield Shared(recipe.name, "missing", key.id if key else None)
            continue
        done = remote.push(entry.key_id, verify)
        outcome = "sent" if done.moved else "there"
        yield Shared(recipe.name, outcome, entry.key_id, entry.digest, done.bytes, done.moved, done.note)


def pull_experiment(experiment: Experiment, store: Store, remote: SharedStore) -> Iterator[Shared]:
    """Bring what the experiment is made of as its files are now; yields each stage once it is here.

    Parts are left there: only who computes their stage needs them, and a run asks for them then.
    """
    remote.check()
    moved: dict[str, int] = {}

    def obtain(key: Key) -> Entry | None:
        built = store.restore(key.id, remote)
        if built is not None and built.outcome == "restored":
            moved[key.id] = built.moved
        return built.entry if built else None

    for recipe, key, entry in _made_of(experiment, store, obtain, with_parts=False):
        if key is None or entry is None:
            yield Shared(recipe.name, "missing", key.id if key else None)
            continue
        outcome = "restored" if key.id in moved else "here"
        size = store.manifest(entry.digest).bytes
        yield Shared(recipe.name, outcome, key.id, entry.digest, size, moved.get(key.id, 0))


def _made_of(
    experiment: Experiment, store: Store, obtain: Callable[[Key], Entry | None], *, with_parts: bool
) -> Iterator[tuple[Recipe, Key | None, Entry | None]]:
    """Every stage in order, its parts before it, with its key and entry; without key where an input is not known."""
    versions = {name: source.source_key(store.digests).id for name, source in open_sources(experiment).items()}
    for stage in open_stages(experiment).values():
        parts = [part(experiment) for part in stage.parts] if with_parts else []
        for recipe in (*parts, stage):
            key = _key(recipe, versions, store)
            entry = obtain(key) if key else None
            if recipe is stage and entry is not None:
                versions[stage.name] = entry.digest
            yield recipe, key, entry


def _key(recipe: Recipe, versions: dict[str, str], store: Store) -> Key | None:
    if any(name not in versions for name in recipe.made_from):
        return None
    return recipe.key(recipe.seen({name: versions[name] for name in recipe.made_from}, store))
