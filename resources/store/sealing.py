"""Sealing: making a produced file immutable, so that one stat tells whether it was written to after it was hashed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from resources.errors import StageError
from resources.store.digests import sha256_of
from resources.store.durable import sync_file
from resources.store.layout import Layout
from resources.store.manifest import FileRecord

# Every sealed file bears this modification time (2000-01-01), so that one stat tells a file that was written to since.
SEALED_NS = 946_684_800 * 10**9
SEALED_MODE = 0o444
WRITER_GRACE = 1.0  # seconds for a child process that is only just starting to drop the files it inherited


@dataclass(frozen=True)
class SealedFile:
    """A file and its record; it was written to since when `is_sealed` says no."""

    path: Path
    record: FileRecord


def is_sealed(status: os.stat_result, size: int) -> bool:
    """Whether a file with this status is as `seal` left it: of `size` bytes, and not written to since."""
    return stat.S_ISREG(status.st_mode) and status.st_size == size and status.st_mtime_ns == SEALED_NS


def mark_sealed(path: Path) -> None:
    """Make the file read-only and give it the modification time of sealed files."""
    path.chmod(SEALED_MODE)
    os.utime(path, ns=(SEALED_NS, SEALED_NS))


def seal_folder(folder: Path, stage: str, layout: Layout) -> list[SealedFile]:
    """Seal all files below `folder`; a StageError for links, special files, open files and for no file at all."""
    paths = list(_files_below(folder, stage)) if folder.is_dir() else []
    sealed = [_seal(path, path.relative_to(folder).as_posix(), stage, layout) for path in paths]
    if not sealed:
        raise StageError(stage, "it left no file in its folder", "An artifact has at least one file")
    return sealed


def _files_below(folder: Path, stage: str) -> Iterator[Path]:
    for item in sorted(folder.iterdir()):
        mode = item.lstat().st_mode
        if stat.S_ISDIR(mode):
            yield from _files_below(item, stage)
        elif stat.S_ISREG(mode):
            yield item
        else:
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise StageError(stage, f"it left {kind}, {item.name}, in its folder", "An artifact holds plain files only")


def _seal(path: Path, name: str, stage: str, layout: Layout) -> SealedFile:
    if path.lstat().st_nlink > 1:
        blob = layout.blob(sha256_of(path))
        with suppress(FileNotFoundError):  # no blob, or one that gc frees at this moment
            if blob.samefile(path):
                return SealedFile(path, FileRecord(name, path.stat().st_size, blob.name))
        _make_own(path)
    mark_sealed(path)
    sync_file(path)
    if _open_for_writing(path):
        raise StageError(stage, f"{name} is still open for writing", "Close every file before the stage ends")
    return SealedFile(path, FileRecord(name, path.lstat().st_size, sha256_of(path)))


def _make_own(path: Path) -> None:
    """Give the file an inode of its own: through its other name it would change inside the store."""
    descriptor, copy = tempfile.mkstemp(dir=path.parent)
    with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    Path(copy).replace(path)


def _open_for_writing(path: Path) -> bool:
    """Whether a process holds the file open for writing, or mapped; Linux tells by refusing a read lease."""
    deadline = time.monotonic() + WRITER_GRACE
    while _read_lease_refused(path):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _read_lease_refused(path: Path) -> bool:
    try:
        import fcntl

        set_lease, set_signal = fcntl.F_SETLEASE, fcntl.F_SETSIG  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Breaking a lease signals its holder; SIGIO, the default, would end this process, SIGURG is ignored.
        fcntl.fcntl(descriptor, set_signal, signal.SIGURG)
        fcntl.fcntl(descriptor, set_lease, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, set_lease, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # others: a file system without leases
    finally:
        os.close(descriptor)
    return False


def changed(stage: str, name: str) -> StageError:
    """The error for a file that was written to while it was committed."""
    return StageError(
        stage, f"{name} changed while it was committed", "End what still writes to it before the stage ends"
    )
