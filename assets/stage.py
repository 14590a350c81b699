"""The Stage protocol: spec + inputs → key → produce(folder).

A recipe is anything the store can build under a key. Three kinds exist: a Source brings an external input in,
a Stage stands behind an asset, a Part is a piece of a stage with a key of its own, so that it is built less often.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from assets.experiment import Experiment, Spec
from assets.fingerprint import code_fingerprint, module_fingerprints
from resources.errors import ConfigurationError
from resources.progress import Progress
from resources.store.digests import FileDigests
from resources.store.keys import Key
from resources.store.manifest import Manifest

if TYPE_CHECKING:
    from assets.gates import GateResult
    from resources.registry.registry import Registry, Version
    from resources.store.store import Store


@dataclass(frozen=True)
class Attempt:
    """One attempt to produce an artifact.

    folder: empty; what lies here at the end becomes the artifact.
    scratch: kept when an attempt of the same key is interrupted, so that the next one can go on from it.
    inputs: input name → folder of its artifact, read-only.
    device: "cpu" or "cuda".
    """

    folder: Path
    scratch: Path
    inputs: Mapping[str, Path]
    progress: Progress
    device: str = "cpu"


@dataclass(frozen=True)
class Facts:
    """What people see of an artifact: numbers, tables (list of rows), plots (PNG bytes) and texts (markdown)."""

    numbers: Mapping[str, float | int] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Recipe(ABC):
    """What the store can build under a key: a name, its spec, its inputs, the code and tools that make it."""

    name: ClassVar[str]
    made_from: ClassVar[tuple[str, ...]] = ()
    tools: ClassVar[tuple[str, ...]] = ()
    # Input name → its files that the recipe is not given, so that a change in them alone leaves its key as it is.
    ignores: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    heavy: ClassVar[bool] = True  # runs in a child process

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @abstractmethod
    def fields(self) -> Mapping[str, Any]:
        """The spec fields that decide the artifact, as JSON values."""

    @abstractmethod
    def produce(self, attempt: Attempt) -> None:
        """Leave the artifact in `attempt.folder`."""

    def facts(self, folder: Path) -> Facts:
        """What people see of the artifact in `folder`; reads what `produce` left, imports nothing heavy."""
        return Facts()

    def own_ingredients(self) -> dict[str, Any]:
        """The ingredients less the inputs: what Dagster calls the code version."""
        return {
            "recipe": self.name,
            **{f"spec.{name}": value for name, value in self.fields().items()},
            "code": code_fingerprint(type(self).__module__),
            **{f"tool.{tool}": tool_version(tool) for tool in self.tools},
        }

    def modules(self) -> dict[str, str]:
        """The modules behind the "code" ingredient, name → sha256: what tells which of them changed."""
        return module_fingerprints(type(self).__module__)

    def code_version(self) -> str:
        return Key(self.own_ingredients()).id

    def seen(self, inputs: Mapping[str, str], store: Store) -> dict[str, str]:
        """Input name → digest of the files that the recipe is given of it, for `inputs`: name → data version."""
        return {
            name: seen_manifest(store.manifest(version), self.ignores[name]).digest if name in self.ignores else version
            for name, version in inputs.items()
        }

    def key(self, seen: Mapping[str, str]) -> Key:
        """The key for what is `seen` of each input in `made_from`."""
        return Key(self.own_ingredients() | {f"input.{name}": seen[name] for name in self.made_from})


def seen_manifest(manifest: Manifest, ignored: Collection[str]) -> Manifest:
    """`manifest` less the files that are ignored."""
    return Manifest(tuple(record for record in manifest.files if record.path not in ignored))


class Source(Recipe):
    """An external input: `identity` says cheaply what it is now, `produce` brings it into a folder.

    Its data version is the id of `source_key`: what it is, and the code and tools that bring it in.
    """

    @abstractmethod
    def identity(self, digests: FileDigests) -> str:
        """What the input is now (a content digest, a commit); a missing one is a ConfigurationError naming its key."""

    @abstractmethod
    def holds(self, folder: Path, identity: str) -> bool:
        """Whether what `produce` left in `folder` is what `identity` said."""

    def text_file(self) -> Path | None:
        """The file of a source that is text, to show what changed in it; None for others."""
        return None

    def source_key(self, digests: FileDigests) -> Key:
        return Key(self.own_ingredients() | {"input.external": self.identity(digests)})


class Stage(Recipe):
    """The pure part behind an asset; `made_from` names other stages and sources.

    `parts` are what `produce` finds in `attempt.inputs` under their names, beside `made_from`.
    """

    parts: ClassVar[tuple[type[Part], ...]] = ()
    gate_inputs: ClassVar[tuple[str, ...]] = ()
    registers: ClassVar[bool] = False  # publish has something to do

    def spec(self) -> Spec:
        return getattr(self.experiment, self.name)

    def fields(self) -> Mapping[str, Any]:
        return self.spec().key_fields()

    def own_ingredients(self) -> dict[str, Any]:
        """Its own and the tools of its parts, which are looked up only when the stage is built."""
        tools = {tool for part in self.parts for tool in part.tools}
        return super().own_ingredients() | {f"tool.{tool}": tool_version(tool) for tool in tools}

    def check(self) -> None:
        """Raise a ConfigurationError for values that cannot work, as far as is seen without running anything."""

    def check_run(self, here: bool) -> None:
        """Raise a ConfigurationError for what cannot work; asked before anything of a run runs, may take seconds.

        here: the stage will be computed on this machine, and not as a job or taken from a shared store.
        """

    def failed_gates(self, opened: Mapping[str, Path]) -> Sequence[GateResult]:
        """The gates that would stop the stage, from the folders of its `gate_inputs`; none for most stages."""
        return ()

    def publish(self, folder: Path, inputs: Mapping[str, str], registry: Registry) -> Version | None:
        """Make the artifact in `folder` known outside the store, once however often it is called."""
        return None

    def is_published(self, inputs: Mapping[str, str], registry: Registry) -> bool:
        """Whether what `publish` made known still is; a stage that publishes nothing says yes."""
        return True


class Part(Recipe):
    """A piece of a stage with a key of its own; `made_from` is a subset of its stage's."""


@cache
def tool_version(tool: str) -> str:
    """The installed version of the first distribution of `tool` ("a|b" names alternatives), without a build label.

    The label is where it runs (torch 2.13.0+cpu, +cu130), which is provenance and not an ingredient.
    """
    for distribution in tool.split("|"):
        try:
            return version(distribution).partition("+")[0]
        except PackageNotFoundError:
            continue
    raise ConfigurationError(f"the package {tool}", "no installation", "the version in constraints.txt", "run make run")
