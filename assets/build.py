"""From a stage and its inputs' data versions to its artifact: parts and sources first, each built at most once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.stage import Recipe, Source, Stage, seen_manifest
from resources.errors import StageError
from resources.store.keys import Key
from resources.store.lease import OnWait
from resources.store.remote import Remote, RemoteDamageError
from resources.store.store import Built, Produce, Store
from resources.store.trees import link_or_copy

# Runs one recipe: in this process or in a child, on this machine or another one.
# Gives what its provenance gains by that: where it ran.
Launch = Callable[[Recipe, Path, Path, Mapping[str, Path]], Mapping[str, Any]]


@dataclass(frozen=True)
class Builder:
    """Builds recipes of one experiment into `store`; `launch` decides where the work happens."""

    store: Store
    sources: Mapping[str, Source]
    launch: Launch
    provenance: Mapping[str, Any]
    force: bool = False
    on_wait: OnWait | None = None  # gets a line when another run computes what is wanted
    remote: Remote | None = None  # is asked for what the store lacks, before it is computed
    push: bool = False  # to the remote, what is not from there
    on_damage: Callable[[str], None] | None = None  # gets a line for what is damaged in the remote

    def build(self, stage: Stage, inputs: Mapping[str, str]) -> Built:
        """The stage's artifact for `inputs` (name → data version); computed only when store and remote lack its key."""

        def produce(folder: Path, scratch: Path) -> Mapping[str, Any]:
            stage.check()
            opened = self._open_inputs(stage, inputs, folder.parent)
            for part_class in stage.parts:
                part = part_class(stage.experiment)
                opened[part.name] = self._build_part(part, inputs)
            return self.launch(stage, folder, scratch, opened)

        return self._build_recipe(stage, inputs, produce, self.force)

    def _build_part(self, part: Recipe, inputs: Mapping[str, str]) -> Path:
        def produce(folder: Path, scratch: Path) -> Mapping[str, Any]:
            return self.launch(part, folder, scratch, self._open_inputs(part, inputs, folder.parent))

        return self.store.open(self._build_recipe(part, inputs, produce).entry.digest)

    def _open_inputs(self, recipe: Recipe, inputs: Mapping[str, str], work: Path) -> dict[str, Path]:
        """Input name → folder with what the recipe sees of it; of an input with ignored files one made in `work`."""
        opened = {name: self._open(name, inputs[name]) for name in recipe.made_from}
        for name, ignored in recipe.ignores.items():
            records = seen_manifest(self.store.manifest(inputs[name]), ignored).files
            opened[name] = _without_others(opened[name], [record.path for record in records], work / "inputs" / name)
        return opened

    def _open(self, name: str, data_version: str) -> Path:
        """The folder of an input; a source is brought into the store when it is not there yet."""
        if name not in self.sources:
            return self.store.open(data_version)
        source = self.sources[name]
        key = source.source_key(self.store.digests)
        if key.id != data_version:
            raise StageError(name, "it changed while the run was under way", "Run again to use it as it is now")

        def produce(folder: Path, scratch: Path) -> Mapping[str, Any]:
            told = self.launch(source, folder, scratch, {})
            if not source.holds(folder, key.ingredients["input.external"]):
                raise StageError(name, "it changed while it was read", "Run again to use it as it is now")
            return told

        return self.store.open(self._build_key(source, key, produce, {}).entry.digest)

    def _build_recipe(self, recipe: Recipe, inputs: Mapping[str, str], produce: Produce, force: bool = False) -> Built:
        known = {name: inputs[name] for name in recipe.made_from}
        key = recipe.key(recipe.seen(known, self.store))
        built = None if force or self.remote is None else self._restore(key, self.remote)
        if built is None:
            built = self._build_key(recipe, key, produce, known, force)
        if self.push and self.remote is not None and built.outcome != "restored":
            self._push(built, self.remote)
        return built

    def _restore(self, key: Key, remote: Remote) -> Built | None:
        """The artifact as the remote has it; None where it has none or a damaged one, which must stop nobody."""
        try:
            return self.store.restore(key.id, remote, self.on_wait)
        except RemoteDamageError as damage:
            self._tell(f"{damage}. It is computed instead")
            return None

    def _push(self, built: Built, remote: Remote) -> None:
        try:
            remote.push(built.entry.key_id)
        except RemoteDamageError as damage:
            self._tell(f"{damage}. What is here is complete")

    def _tell(self, line: str) -> None:
        if self.on_damage is not None:
            self.on_damage(line)

    def _build_key(
        self, recipe: Recipe, key: Key, produce: Produce, inputs: Mapping[str, str], force: bool = False
    ) -> Built:
        provenance = {**self.provenance, "inputs": dict(inputs), "modules": recipe.modules()}
        return self.store.build(key, produce, provenance, force=force, on_wait=self.on_wait)


def _without_others(tree: Path, names: Iterable[str], folder: Path) -> Path:
    """`folder`, made with the files of `tree` that are named: what is not there cannot be read by mistake."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(tree / name, path)
    return folder
