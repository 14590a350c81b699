"""Writing so that a crash leaves the old state or the new one: fsync the bytes, rename, fsync the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def read_bytes(path: str) -> bytes:
    """The bytes of the file at `path`."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - making a Path takes as long as reading
        return file.read()


def sync_file(path: Path) -> None:
    """Return when the bytes of the file are on the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder are on the disk."""
    _sync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def make_folder(folder: Path) -> None:
    """Make `folder` and what it lacks above, durably; one that is there already costs a look."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def move(source: Path, target: Path) -> None:
    """Rename a synced file over `target`, whose folder is made when it is missing; durable once that is synced."""
    make_folder(target.parent)
    if target.is_dir() and not target.is_symlink():
        remove_tree(target)
    source.replace(target)


def move_durably(source: Path, target: Path) -> None:
    """The same, durable on return."""
    move(source, target)
    sync_folder(target.parent)


def write_durably(data: bytes, target: Path, work: Path) -> None:
    """Leave `data` in `target`, whole or not at all; `work` is a folder of the same file system to write it in."""
    staged = work / f"{target.name}.new"
    staged.write_bytes(data)
    sync_file(staged)
    move_durably(staged, target)


def remove_tree(path: Path) -> None:
    """Remove a file or folder as far as possible; what a dying process still writes is left to the next sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
