"""A remote: a store elsewhere that has artifacts under the same keys and digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from resources.errors import StageError
from resources.store.entry import Entry
from resources.store.manifest import Manifest


class RemoteDamageError(StageError):
    """Something in a remote is not what its name says; nothing of it was taken."""


@dataclass(frozen=True)
class Transfer:
    """What was moved: bytes sent or received, and the artifact's bytes in all; `note` is what else is to be said."""

    moved: int
    bytes: int
    note: str = ""


class Kept(NamedTuple):
    """What a remote has under a key; both are checked, the artifact's files are not."""

    entry: Entry
    manifest: Manifest


class Remote(Protocol):
    """What a store asks of a remote. Raises a RemoteDamageError for damage, another StageError for what is in the way.

    place: its address, without any secret.
    """

    @property
    def place(self) -> str: ...

    def look(self, key_id: str) -> Kept | None:
        """What it has under the key; None when it has nothing."""
        ...

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest of an artifact; None when it has none."""
        ...

    def bring(self, manifest: Manifest, folder: Path) -> int:
        """The bytes received so that `folder` holds the files of `manifest`, verified; those there already stay."""
        ...

    def push(self, key_id: str) -> Transfer:
        """Leave there what this machine's store has under the key."""
        ...
