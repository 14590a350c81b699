"""Folders to publish, and their manifests."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from resources.store.manifest import FileRecord, Manifest


def make_folder(folder: Path, seed: int = 0, large: int = 0) -> Path:
    """A folder of small files of many kinds, and one of `large` random bytes where that is not 0."""
    files = {"genai_config.json": b"{}\n", "adapters/a.onnx_adapter": b"adapter" * 50, "empty": b"", "ã b.txt": b"name"}
    files["seed"] = str(seed).encode()
    if large:
        files["model.onnx.data"] = random.Random(seed).randbytes(large)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def manifest_of(folder: Path) -> Manifest:
    """The manifest of everything in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(tuple(_record(path, folder) for path in files))


def _record(path: Path, folder: Path) -> FileRecord:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileRecord(path.relative_to(folder).as_posix(), path.stat().st_size, digest)
