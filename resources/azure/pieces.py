"""One blob to one file in pieces, several at once, remembered beside it until it is whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resources.azure.container import Container, ForeignBlob
from resources.errors import StageError

PARALLEL = 6
PIECE = 4 << 20  # bytes fetched at once; the SDK holds each one twice


def fetch_pieces(container: Container, blob: ForeignBlob, file: Path, tell: Callable[[int], None]) -> None:
    """Leave the bytes of `blob` in `file`; pieces that a call before brought are kept while the blob is the same.

    The whole file is checked against the blob's MD5, where its writer said it. tell: gets the bytes that are there.
    """
    part, notes = file.with_name(f".{file.name}.part"), _Notes(file.with_name(f".{file.name}.pieces"), blob)
    if not file.exists():
        has = notes.sound(part)
        if not has:
            with part.open("wb") as made:
                made.truncate(blob.size)
            notes.begin()
        _fetch_missing(container, blob, part, notes, has, tell)
        _check_whole(container, blob, part, notes)
        part.rename(file)
        notes.forget()
    tell(blob.size)


def _fetch_missing(
    container: Container, blob: ForeignBlob, part: Path, notes: _Notes, has: set[int], tell: Callable[[int], None]
) -> None:
    def fetch(offset: int) -> int:
        data = container.read_version(blob.name, offset, min(PIECE, blob.size - offset), blob.version)
        with part.open("r+b", buffering=0) as file:
            file.seek(offset)
            file.write(data)
        notes.add(offset, data)
        return len(data)

    done = sum(min(PIECE, blob.size - offset) for offset in has)
    missing = [offset for offset in range(0, blob.size, PIECE) if offset not in has]
    with ThreadPoolExecutor(PARALLEL, "azure-pieces") as pool:
        for size in pool.map(fetch, missing):
            done += size
            tell(done)


def _check_whole(container: Container, blob: ForeignBlob, part: Path, notes: _Notes) -> None:
    if blob.md5 is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
    if found != blob.md5:
        notes.forget()
        told = "its bytes are not those of the MD5 that it was written with"
        raise StageError(container.prefix + blob.name, told, "Report it to the model's owner, or run again")


class _Notes:
    """Which pieces are in a half file: the blob's version first, then a line with offset and sha256 for each."""

    def __init__(self, file: Path, blob: ForeignBlob) -> None:
        self._file = file
        self._head = f"{blob.version} {blob.size}\n"
        self._size = blob.size
        self._lock = threading.Lock()

    def begin(self) -> None:
        self._file.write_text(self._head, encoding="utf-8")

    def add(self, offset: int, data: bytes) -> None:
        line = f"{offset} {hashlib.sha256(data).hexdigest()}\n"
        with self._lock, self._file.open("a", encoding="utf-8") as notes:
            notes.write(line)

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    def sound(self, part: Path) -> set[int]:
        """The offsets of the pieces that are in `part`, by their bytes; none when it is of another version."""
        if not (self._file.is_file() and part.is_file() and part.stat().st_size == self._size):
            return set()
        lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if lines[:1] != [self._head]:
            return set()
        found: set[int] = set()
        with part.open("rb") as file:
            for line in lines[1:]:
                offset, _, digest = line.strip().partition(" ")
                if offset.isdecimal() and int(offset) % PIECE == 0 and _has(file, int(offset), digest):
                    found.add(int(offset))
        return found


def _has(file: Any, offset: int, digest: str) -> bool:
    file.seek(offset)
    return hashlib.sha256(file.read(PIECE)).hexdigest() == digest
