"""Verification: every key, manifest, blob and tree read again, and what is wrong with which."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError
from resources.progress import Progress
from resources.store.contents import MISSING, Contents, items_of, note_damage, read_index
from resources.store.digests import sha256_of
from resources.store.layout import Layout
from resources.store.manifest import DIGEST, Manifest
from resources.store.trees import is_linked, names_below


@dataclass(frozen=True)
class Verification:
    """What lies in the store and what is wrong with it.

    bytes: of all blobs. damaged: one {"kind", "digest", "path", "reason", "stages"} each; kind is "key", "spare_key",
    "manifest", "blob" or "tree", path is relative to the store, stages are those that lose their artifact by it.
    """

    artifacts: int
    blobs: int
    bytes: int
    damaged: list[dict[str, Any]]


def verify(layout: Layout, progress: Progress | None = None) -> Verification:
    """Read everything in the store again; changes nothing."""
    contents = read_contents(layout, progress)
    sizes = contents.sizes
    return Verification(len(contents.manifests), len(sizes), sum(sizes.values()), contents.damaged)


def read_contents(layout: Layout, progress: Progress | None = None) -> Contents:
    """Everything in the store, read again; trees come last, because they lean on all others."""
    contents = read_index(layout)
    if layout.check_version():
        _read_blobs(layout, contents, progress)
        _read_trees(layout, contents)
    contents.damaged = [item for item in contents.damaged if not _was_freed(layout, contents, item)]
    return contents


def _was_freed(layout: Layout, contents: Contents, item: dict[str, Any]) -> bool:
    """Whether it looked damaged only because gc freed it, or what names it, while the store was read."""
    if item["kind"] == "tree":
        return not os.path.lexists(layout.root / item["path"])
    if item["reason"] != MISSING:
        return False
    if (layout.root / item["path"]).exists():
        return True
    if item["kind"] == "key":
        return not layout.spare_key(item["digest"]).exists()
    if item["kind"] == "manifest":
        keys = [entry.key_id for entry in contents.entries.values() if entry.digest == item["digest"]]
        return not any(layout.key(key_id).exists() for key_id in keys)
    return not any(layout.manifest(digest).exists() for digest in contents.artifacts_with(item["digest"]))


def _read_blobs(layout: Layout, contents: Contents, progress: Progress | None) -> None:
    expected = {record.sha256: record.size for manifest in contents.manifests.values() for record in manifest.files}
    paths = [path for folder in items_of(layout.blobs) for path in (items_of(folder) if folder.is_dir() else [folder])]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        for done, (path, found) in enumerate(zip(paths, threads.map(blob_damage, paths), strict=True), start=1):
            there = _size_now(path)
            if found == GONE or there is None:
                continue
            contents.sizes[path.name] = there
            if found:
                size = expected.get(path.name)
                reason = found if size in (None, there) else f"has {there} bytes instead of {size}"
                note_damage(layout, contents, "blob", path, reason, contents.artifacts_with(path.name))
            if progress is not None:
                progress.step("verify", done, len(paths))
    for sha256 in sorted(expected.keys() - contents.sizes.keys()):
        if not layout.blob(sha256).exists():
            note_damage(layout, contents, "blob", layout.blob(sha256), MISSING, contents.artifacts_with(sha256))


def _size_now(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


GONE = "gone"  # removed since the folder was listed


def blob_damage(path: Path) -> str:
    """What is wrong with the blob at `path`, or nothing; reads it."""
    if path.is_symlink() or not path.is_file() or not DIGEST.fullmatch(path.name) or path.parent.name != path.name[:2]:
        return "is not a blob" if path.is_symlink() or path.exists() else GONE
    try:
        return "" if sha256_of(path) == path.name else "its bytes have another sha256"
    except FileNotFoundError:
        return GONE
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _read_trees(layout: Layout, contents: Contents) -> None:
    named = {entry.digest for entry in contents.entries.values()}
    for tree in items_of(layout.trees):
        if tree == layout.temporary_trees:
            continue
        manifest = contents.manifests.get(tree.name) or _manifest_since(layout, tree.name)
        if manifest is None and tree.name not in named and DIGEST.fullmatch(tree.name):
            continue  # left over by a killed gc: nothing leads to it, and the next gc frees it
        if reason := _damage_at_rest(layout, tree, manifest):
            # A tree is made anew when it is opened: no stage loses anything by it.
            note_damage(layout, contents, "tree", tree, reason, set())


def _manifest_since(layout: Layout, digest: str) -> Manifest | None:
    """The manifest that was committed after manifests were read, if there is one."""
    try:
        manifest = Manifest.from_json((layout.manifests / f"{digest}.json").read_bytes())
    except (ConfigurationError, OSError):
        return None
    return manifest if manifest.digest == digest else None


def _damage_at_rest(layout: Layout, tree: Path, manifest: Manifest | None) -> str:
    """The same as `tree_damage`, for a tree that may be made anew or freed while it is read."""
    reason = ""
    for _ in range(3):
        before = _stamp(tree)
        try:
            reason = tree_damage(layout, tree, manifest) if before else ""
        except FileNotFoundError:
            reason = "does not stay as it is"
        if not reason or _stamp(tree) == before:
            break
    return reason


def _stamp(tree: Path) -> tuple[int, int] | None:
    """Trees come and go by one rename, which changes this."""
    try:
        status = tree.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def tree_damage(layout: Layout, tree: Path, manifest: Manifest | None) -> str:
    """What is wrong with a tree, or nothing; reads the files that are copies of blobs and not links."""
    if manifest is None:
        return "has no manifest"
    if not tree.is_dir() or tree.is_symlink() or names_below(tree) != {record.path for record in manifest.files}:
        return "has other files than its manifest"
    for record in manifest.files:
        path = tree / record.path
        linked = is_linked(path.lstat(), layout.blob(record.sha256))
        if not linked and (path.is_symlink() or not path.is_file() or sha256_of(path) != record.sha256):
            return f"{record.path} was altered"
    return ""
