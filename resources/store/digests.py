"""Digests of files, remembered as long as their inode says that nobody wrote to them."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from resources.errors import ConfigurationError
from resources.store.manifest import FileRecord, Manifest

# A file written less than this many seconds before it was read may be written again within the same clock tick,
# so its stamp proves nothing (git calls it racy). Two seconds is the coarsest clock of a file system, FAT's.
RACY_SECONDS = 2.0

Stamp = tuple[int, int, int, int, int]  # size, mtime_ns, ctime_ns, inode, device


class FileDigests:
    """sha256 of files, cached in the SQLite file `cache` by path, size, mtime, ctime and inode.

    The change time stands beside the modification time because only the kernel can set it: an edit that puts the old
    modification time back is seen. A cache that cannot be read or written costs time, never truth.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, tuple[Stamp, str]] | None = None

    def file(self, path: Path) -> str:
        """The sha256 of the file at `path` as it is now; a missing or changing one is a ConfigurationError."""
        return self.record(path, str(path)).sha256

    def folder(self, path: Path) -> str:
        """The digest of the manifest of all files below the folder `path`; links to files count as files."""
        return self.folder_manifest(path).digest

    def folder_manifest(self, path: Path) -> Manifest:
        """The manifest of all files below the folder `path`, which a ConfigurationError names if it is not one."""
        if not path.is_dir():
            raise ConfigurationError(str(path), "a file" if path.exists() else "nothing", "a folder")
        return Manifest(tuple(self.record(file, file.relative_to(path).as_posix()) for file in _files_below(path)))

    def record(self, path: Path, name: str) -> FileRecord:
        """Size and sha256 of the file at `path`, under the path `name`."""
        stamp = _stamp(path)
        known = self._load().get(os.path.abspath(path))  # noqa: PTH100 - resolve() would cost a look-up per folder
        if known is not None and known[0] == stamp:
            return FileRecord(name, stamp[0], known[1])
        for _ in range(3):
            started = time.time()
            digest = sha256_of(path)
            before, stamp = stamp, _stamp(path)
            if before == stamp:
                if max(stamp[1], stamp[2]) / 1e9 < started - RACY_SECONDS:
                    self._remember(os.path.abspath(path), stamp, digest)  # noqa: PTH100
                return FileRecord(name, stamp[0], digest)
        raise ConfigurationError(str(path), "a file that changes while it is read", "a file at rest", "Try again later")

    def _load(self) -> dict[str, tuple[Stamp, str]]:
        if self._known is None:
            self._known = {}
            if self._cache.is_file():
                try:
                    self._known = self._read()
                except sqlite3.OperationalError:  # busy, or on a disk that fails: this process reads the files
                    pass
                except sqlite3.DatabaseError:  # damaged: begin a new one
                    self._cache.unlink(missing_ok=True)
        return self._known

    def _read(self) -> dict[str, tuple[Stamp, str]]:
        with closing(sqlite3.connect(self._cache, timeout=10)) as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM digests")
            return {path: ((size, *times), digest) for path, digest, size, *times in rows}

    def _remember(self, path: str, stamp: Stamp, digest: str) -> None:
        self._load()[path] = (stamp, digest)
        with suppress(sqlite3.Error, OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._cache, timeout=10)) as connection, connection:
                connection.execute(SCHEMA)
                connection.execute(
                    f"INSERT OR REPLACE INTO digests ({COLUMNS}) VALUES (?,?,?,?,?,?,?)", (path, digest, *stamp)
                )


COLUMNS = "path, sha256, size, mtime_ns, ctime_ns, inode, device"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL, "
    "mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, inode INTEGER NOT NULL, device INTEGER NOT NULL)"
)


def sha256_of(path: Path) -> str:
    """The sha256 of the bytes at `path`, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigurationError(str(path), "nothing", "a file") from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(str(path), "something that is not a file", "a file")
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _files_below(folder: Path) -> Iterator[Path]:
    for item in sorted(folder.iterdir()):
        if item.is_dir():
            if item.is_symlink():
                raise ConfigurationError(str(item), "a link to a folder", "folders and files")
            yield from _files_below(item)
        else:
            yield item
