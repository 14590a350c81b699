"""Arrivals: artifacts that come from a remote, committed like those that are built here."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.store.blobs import Blobs
from resources.store.commits import ARTIFACT, Commits
from resources.store.disk import FullDisk
from resources.store.durable import make_folder, move_durably, remove_tree
from resources.store.entry import Entry
from resources.store.layout import Layout
from resources.store.lease import Leases
from resources.store.manifest import Manifest
from resources.store.remote import Remote, RemoteDamageError
from resources.store.trees import link_or_copy
from resources.store.usage import BEGAN

NO_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)


class Arrivals:
    """Brings artifacts into a store; what came of one stays in its scratch, so that the next try goes on from it."""

    def __init__(self, layout: Layout, leases: Leases, blobs: Blobs, commits: Commits) -> None:
        self._layout = layout
        self._leases = leases
        self._blobs = blobs
        self._commits = commits

    def bring(self, remote: Remote, manifest: Manifest, entry: Entry | None) -> int:
        """Commit the artifact of `manifest` under the key of `entry`; returns the bytes that came from `remote`."""
        digest = manifest.digest
        stage = str(entry.ingredients.get("recipe", digest[:12])) if entry else f"artifact {digest[:12]}"
        scratch = self._layout.scratch(digest)
        with (
            self._leases.take(digest),
            self._leases.work_folder(digest) as work,
            FullDisk(stage, self._layout.root, (work, scratch)),
        ):
            (work / BEGAN).touch()
            make_folder(scratch)
            with _named(remote, digest, scratch):
                self._link_known(manifest, scratch)
                moved = remote.bring(manifest, scratch)
            move_durably(scratch, work / ARTIFACT)

            def entry_of(arrived: Manifest) -> Entry | None:
                if arrived != manifest:
                    raise RemoteDamageError(
                        stage, f"what came from {remote.place} is not {digest[:12]}", "Run it again"
                    )
                return entry

            self._commits.commit(stage, work, entry_of)
        return moved

    def _link_known(self, manifest: Manifest, folder: Path) -> None:
        """What the store holds of it, under another key or in another artifact, need not come."""
        for record in manifest.files:
            path = folder / record.path
            if self._blobs.sound(record.sha256, record.size):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                link_or_copy(self._layout.blob(record.sha256), path)


@contextmanager
def _named(remote: Remote, digest: str, scratch: Path) -> Iterator[None]:
    """Leave nothing of a damaged artifact, and turn what the disk says of its file names into damage."""
    try:
        yield
    except RemoteDamageError:
        remove_tree(scratch)
        raise
    except OSError as error:
        if error.errno not in NO_NAME:
            raise
        remove_tree(scratch)
        place = f"{remote.place}, manifest {digest}"
        raise RemoteDamageError(place, f"it names a file that cannot be kept here ({error.strerror})") from error
