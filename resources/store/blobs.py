"""Blobs: the bytes of files, immutable, each under its own sha256."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from resources.errors import ConfigurationError
from resources.store.digests import FileDigests
from resources.store.durable import move, remove_tree, sync_folder
from resources.store.layout import Layout
from resources.store.manifest import FileRecord
from resources.store.sealing import SealedFile, changed, is_sealed


class Blobs:
    """The blobs of a store."""

    def __init__(self, layout: Layout, digests: FileDigests) -> None:
        self._layout = layout
        self._digests = digests

    def sound(self, sha256: str, size: int) -> bool:
        """Whether the blob is there and unchanged: by its stat, and by its bytes once it was written to or copied."""
        path = self._layout.blob_name(sha256)
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return is_sealed(status, size) or (status.st_size == size and self._has_bytes(Path(path), sha256))

    def missing(self, records: Iterable[FileRecord]) -> list[FileRecord]:
        """Those of `records` whose blobs are not sound."""
        return [record for record in records if not self.sound(record.sha256, record.size)]

    def place(self, stage: str, sealed: Iterable[SealedFile]) -> None:
        """Move sealed files to where blobs lie, in place of none or of a damaged one; durable on return."""
        folders = set()
        for file in sealed:
            blob = self._layout.blob(file.record.sha256)
            if blob.exists() and blob.samefile(file.path):
                continue
            if not is_sealed(file.path.lstat(), file.record.size):
                raise changed(stage, file.record.path)
            if not self.sound(file.record.sha256, file.record.size):
                move(file.path, blob)
                folders.add(blob.parent)
        for folder in folders:
            sync_folder(folder)

    def confirm(self, stage: str, records: Iterable[FileRecord]) -> None:
        """Raise a StageError, and drop the blob, when one was written to since it was placed."""
        for record in self.missing(records):
            remove_tree(self._layout.blob(record.sha256))
            raise changed(stage, record.path)

    def _has_bytes(self, path: Path, sha256: str) -> bool:
        try:
            return self._digests.file(path) == sha256
        except ConfigurationError:  # it went away meanwhile, or is being written to
            return False
