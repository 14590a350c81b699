"""Trees: artifacts as folders that stages read, made of hard links, or of copies where links cannot be made."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from resources.store.layout import Layout
from resources.store.lease import Leases, tree_owner
from resources.store.manifest import FileRecord, Manifest
from resources.store.sealing import is_sealed, mark_sealed

# Other file system; not permitted (another user's file, or no links at all); too many links; not supported.
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
NO_CLONES = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EPERM)


class Trees:
    """The trees of a store."""

    def __init__(self, layout: Layout, leases: Leases) -> None:
        self._layout = layout
        self._leases = leases

    def open(self, manifest: Manifest) -> Path:
        """The folder with the files of `manifest`; one that was altered is made anew.

        A FileNotFoundError when the artifact is freed meanwhile.
        """
        tree = self._layout.tree(manifest.digest)
        if self.intact(tree, manifest):
            return tree
        owner = tree_owner(manifest.digest)
        with self._leases.take(owner):
            if not self.intact(tree, manifest):
                self._layout.manifest(manifest.digest).stat()  # a tree without it would belong to nobody
                with self._leases.work_folder(owner, self._layout.temporary_trees) as work:
                    self._make(tree, manifest, work)
        return tree

    def intact(self, tree: Path, manifest: Manifest) -> bool:
        """Whether `tree` holds exactly the files of `manifest`, none replaced or written to."""
        if not tree.is_dir() or tree.is_symlink():
            return False
        try:
            return names_below(tree) == {record.path for record in manifest.files} and all(
                self._same(tree / record.path, record) for record in manifest.files
            )
        except FileNotFoundError:  # freed, or made anew, while it was looked at
            return False

    def _same(self, path: Path, record: FileRecord) -> bool:
        status = path.lstat()
        # A link is as good as its blob, a copy as good as its seal.
        return is_linked(status, self._layout.blob(record.sha256)) or is_sealed(status, record.size)

    def _make(self, tree: Path, manifest: Manifest, work: Path) -> None:
        fresh = work / "tree"
        for record in manifest.files:
            path = fresh / record.path
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(self._layout.blob(record.sha256), path)
        if tree.exists() or tree.is_symlink():
            tree.rename(work / "altered")
        fresh.rename(tree)


def is_linked(status: os.stat_result, blob: Path) -> bool:
    """Whether the file with this status is the blob under another name."""
    try:
        return os.path.samestat(status, blob.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def link_or_copy(blob: Path, path: Path) -> None:
    """Give the blob a second name at `path`, or copy it there: by reference where the file system can."""
    try:
        path.hardlink_to(blob)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(blob, path)
        mark_sealed(path)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            # The kernel shares the bytes instead of copying them where the file system has reflinks.
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_CLONES:
                raise
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)


def names_below(folder: Path) -> set[str]:
    """The paths below `folder` of everything that is not a folder, with forward slashes."""
    return {entry.path.removeprefix(f"{folder}{os.sep}").replace(os.sep, "/") for entry in _items_below(folder)}


def _items_below(folder: Path | str) -> list[os.DirEntry[str]]:
    items: list[os.DirEntry[str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            items.extend(_items_below(entry.path) if entry.is_dir(follow_symlinks=False) else [entry])
    return items
