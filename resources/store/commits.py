"""Commits: what lies in a work folder becomes an artifact of the store, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from resources.errors import ConfigurationError, StageError
from resources.store.blobs import Blobs
from resources.store.durable import read_bytes, write_durably
from resources.store.entry import Entry
from resources.store.layout import Layout
from resources.store.lease import COMMIT, Leases
from resources.store.manifest import Manifest
from resources.store.sealing import SealedFile, seal_folder
from resources.store.use import mark_used

E = TypeVar("E", bound=Entry | None)
NOT_A_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
ARTIFACT = "artifact"  # the folder in a work folder that is committed


class Commits:
    """The way into a store: blobs first, the manifest next, the key last, each durable before the next."""

    def __init__(self, layout: Layout, leases: Leases, blobs: Blobs) -> None:
        self._layout = layout
        self._leases = leases
        self._blobs = blobs

    def commit(self, stage: str, work: Path, entry_of: Callable[[Manifest], E]) -> E:
        """Commit `work`/artifact under the key of what `entry_of` gives, or under none; returns that.

        `entry_of` may refuse the manifest with an error; nothing was committed then.
        """
        sealed = seal_folder(work / ARTIFACT, stage, self._layout)
        manifest = _manifest_of(stage, sealed)
        with self._leases.take(COMMIT):
            entry = entry_of(manifest)
            self._blobs.place(stage, sealed)
            self._blobs.confirm(stage, manifest.files)
            path = self._layout.manifest(manifest.digest)
            if self.manifest(manifest.digest) is None:
                write_durably(manifest.to_json(), path, work)
            mark_used(path)
            if entry is not None:
                write_durably(entry.to_json(), self._layout.key(entry.key_id), work)
                with suppress(OSError):  # the artifact is there without it
                    write_durably(entry.to_json(), self._layout.spare_key(entry.key_id), work)
        return entry

    def manifest(self, digest: str) -> Manifest | None:
        """The manifest with this digest; None when there is none, or it was altered."""
        path = self._layout.manifest_name(digest)
        try:
            manifest = Manifest.from_json(read_bytes(path))
        except (*NOT_A_FILE, ConfigurationError):
            return None
        return manifest if manifest.digest == digest else None


def _manifest_of(stage: str, sealed: list[SealedFile]) -> Manifest:
    try:
        return Manifest(tuple(file.record for file in sealed))
    except ConfigurationError as error:
        raise StageError(stage, f"it left a file with a name that cannot be kept: {error}") from error
