"""Usage: what lies in the store, how large it is, when it was last used, and what nobody refers to any more."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from resources.errors import StageError
from resources.store.contents import Contents, items_of, read_index
from resources.store.entry import Entry
from resources.store.layout import Layout
from resources.store.lease import COMMIT, Leases
from resources.store.manifest import DIGEST


@dataclass(frozen=True)
class Item:
    """What can be freed as a whole: an artifact with all keys that name it, or what an interrupted attempt left.

    name: the artifact's digest, or the key id of the attempt. blobs: sha256 of each. own_bytes: of files that are
    no blobs: copies in the tree, the scratch. last_used_ns: since 1970.
    """

    kind: Literal["artifact", "scratch"]
    name: str
    entries: tuple[Entry, ...]
    blobs: frozenset[str]
    own_bytes: int
    last_used_ns: int

    @property
    def key_ids(self) -> list[str]:
        """The keys whose leases protect it."""
        return [self.name] if self.kind == "scratch" else [entry.key_id for entry in self.entries]


@dataclass
class Usage:
    """Everything in a store that takes room. Names of blobs are sha256, of trees digests, of scratches key ids.

    blobs: name → bytes of all that are there. orphans: blobs that no manifest names. stray_trees: those without
    manifest. finished: scratches of keys that were committed. leftover_bytes: of these three and of what dead
    processes were writing; busy_bytes: of what living ones are. began: when the first build in progress began.
    """

    items: list[Item] = field(default_factory=list)
    blobs: dict[str, int] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    stray_trees: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    leftover_bytes: int = 0
    busy_bytes: int = 0
    began: float | None = None

    @property
    def bytes(self) -> int:
        """Of everything, each inode once."""
        used = sum(self.blobs.values()) + sum(item.own_bytes for item in self.items)
        return used + self.busy_bytes + self.leftover_bytes - sum(self.blobs[name] for name in self.orphans)


def read_usage(layout: Layout, leases: Leases, *, committing: bool) -> Usage:
    """What lies in the store now; `committing` says that this process holds the lease of committing.

    A StageError when a key or a manifest cannot be used: what belongs to it could not be told from what is left over.
    """
    return _Reader(layout, leases, committing).read()


class _Reader:
    """One reading of a store; each inode counts where it is met first: blobs, trees, scratches, temporary folders."""

    def __init__(self, layout: Layout, leases: Leases, committing: bool) -> None:
        self._layout = layout
        self._leases = leases
        self._committing = committing
        self._usage = Usage()
        self._counted: set[tuple[int, int]] = set()

    def read(self) -> Usage:
        contents = read_index(self._layout)
        if contents.damaged:
            first = contents.damaged[0]
            what = f"{len(contents.damaged)} keys or manifests are damaged, first {first['path']}: {first['reason']}"
            raise StageError("store", what, "Run press store repair, then press store gc again")
        self._read_blobs({record.sha256 for manifest in contents.manifests.values() for record in manifest.files})
        self._read_artifacts(contents)
        self._read_scratches(contents.entries.keys())
        for parent in (self._layout.temporary, self._layout.temporary_trees):
            for folder in items_of(parent):
                self._read_temporary(folder)
        return self._usage

    def _read_blobs(self, wanted: Collection[str]) -> None:
        for folder in items_of(self._layout.blobs):
            for path, status in _files_below(folder):
                name = path.rpartition("/")[2]
                if DIGEST.fullmatch(name) and folder.name == name[:2]:
                    self._usage.blobs[name] = self._count(status)
                    if name not in wanted:
                        self._usage.orphans.append(name)
                        self._usage.leftover_bytes += self._usage.blobs[name]

    def _read_artifacts(self, contents: Contents) -> None:
        entries: dict[str, list[Entry]] = {}
        for entry in contents.entries.values():
            entries.setdefault(entry.digest, []).append(entry)
        for digest, manifest in contents.manifests.items():
            try:
                last_used = self._layout.manifest(digest).stat().st_mtime_ns
            except FileNotFoundError:
                continue  # freed since it was read
            own = self._size(self._layout.tree(digest))
            blobs = frozenset(record.sha256 for record in manifest.files)
            keyed = tuple(entries.get(digest, ()))
            self._usage.items.append(Item("artifact", digest, keyed, blobs, own, last_used))
        for tree in items_of(self._layout.trees):
            if DIGEST.fullmatch(tree.name) and tree.name not in contents.manifests:
                self._usage.stray_trees.append(tree.name)
                self._usage.leftover_bytes += self._size(tree)

    def _read_scratches(self, committed: Collection[str]) -> None:
        for scratch in items_of(self._layout.scratches):
            if not DIGEST.fullmatch(scratch.name):
                continue
            last_used, size = last_written_ns(scratch), self._size(scratch)
            if scratch.name in committed and not self._leases.is_held(scratch.name):
                self._usage.finished.append(scratch.name)
                self._usage.leftover_bytes += size
            elif last_used is not None:
                self._usage.items.append(Item("scratch", scratch.name, (), frozenset(), size, last_used))

    def _read_temporary(self, folder: Path) -> None:
        owner = folder.name.partition("~")[0]
        size = self._size(folder)
        if (self._committing and owner == COMMIT) or not self._leases.is_held(owner):
            self._usage.leftover_bytes += size
            return
        self._usage.busy_bytes += size
        if DIGEST.fullmatch(owner) and (began := _began(folder)) is not None:
            self._usage.began = min(began, self._usage.began or began)

    def _size(self, path: Path) -> int:
        return sum(self._count(status) for _, status in _files_below(path))

    def _count(self, status: os.stat_result) -> int:
        inode = (status.st_dev, status.st_ino)
        if inode in self._counted:
            return 0
        self._counted.add(inode)
        return status.st_size


BEGAN = "began"  # the file in the temporary folder of a build whose modification time is when it began


def _began(folder: Path) -> float | None:
    """When the build in the folder began; before it says so it has opened nothing."""
    for path in (folder / BEGAN, folder):
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return None


def last_written_ns(folder: Path) -> int | None:
    """The newest modification time of `folder` and all below it; None when there is no such folder."""
    return max((status.st_mtime_ns for _, status in _items_below(str(folder))), default=None)


def _files_below(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    return (item for item in _items_below(str(path)) if not stat.S_ISDIR(item[1].st_mode))


def _items_below(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """`path` and everything below it with its status; what goes away meanwhile is left out."""
    try:
        status = os.lstat(path)
        names = os.listdir(path) if stat.S_ISDIR(status.st_mode) else []  # noqa: PTH208 - there are many
    except FileNotFoundError:
        return
    yield path, status
    for name in names:
        yield from _items_below(f"{path}/{name}")
