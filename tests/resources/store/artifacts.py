"""Small artifacts for the store's tests: produce functions, readers, and damage done the way disks and people do it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from resources.store.keys import Key
from resources.store.store import Produce, Store

FILES = {
    "config.json": b'{"bits": 4}',
    "weights/layer.bin": bytes(range(256)) * 40,
    "weights/copy.bin": bytes(range(256)) * 40,
}


def key_of(name: str) -> Key:
    return Key({"recipe": "awq_model", "spec.name": name})


def produces(files: Mapping[str, bytes]) -> Produce:
    def produce(folder: Path, scratch: Path) -> None:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return produce


def must_not_run(folder: Path, scratch: Path) -> None:
    raise AssertionError("the artifact was computed although the store has it")


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def content_of(store: Store, name: str) -> dict[str, bytes] | None:
    """What a stage would read under the key of `name`, or None when the store says that it lacks it."""
    entry = store.find(key_of(name))
    return files_in(store.open(entry.digest)) if entry else None


def blob_with(home: Path, content: bytes) -> Path:
    return next(
        path for path in (home / "store" / "blobs").rglob("*") if path.is_file() and path.read_bytes() == content
    )


def flip_byte(path: Path) -> None:
    """As an editor or a runaway program would: the time of modification moves."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.chmod(0o644)
    path.write_bytes(content)


def rot(path: Path) -> None:
    """As a bad disk would: a byte differs, and nothing in the inode tells."""
    status = path.stat()
    flip_byte(path)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def left_behind(home: Path) -> list[str]:
    """The names of everything unfinished in the store."""
    store = home / "store"
    folders = [store / "temporary", store / "scratch", store / "trees" / ".temporary"]
    return [item.name for folder in folders if folder.is_dir() for item in folder.iterdir()]
