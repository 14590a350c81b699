"""What a full disk says: where, how much was written, how much is free, what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from resources.errors import StageError
from resources.store.sizes import format_size

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_TEXTS = tuple(os.strerror(number) for number in FULL)


class FullDisk:
    """Turns any error that a full disk caused inside the `with` block into a StageError that says so.

    Libraries report it in errors of their own, so the chain of causes and their texts count as well.
    """

    def __init__(self, stage: str, place: Path, written: tuple[Path, ...] = ()) -> None:
        """`place` lies on the disk; `written` are the folders that the attempt wrote to, as far as it came."""
        self._stage = stage
        self._place = place
        self._written = written

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, _FullDiskError) and _is_full(error):
            raise _FullDiskError(self._stage, self._what(), REMEDY) from error

    def _what(self) -> str:
        disk = os.statvfs(_nearest(self._place))
        free = f"{format_size(disk.f_bavail * disk.f_frsize)} of {format_size(disk.f_blocks * disk.f_frsize)}"
        if disk.f_files and not disk.f_favail:
            free = f"no inodes (it holds as many files as it can), and {free}"
        written = sum(item.lstat().st_blocks * 512 for folder in self._written for item in folder.rglob("*"))
        attempt = f"; this attempt had written {format_size(written)} and needs more" if self._written else ""
        return f"the disk under {self._place} is full: {free} are free{attempt}"


class _FullDiskError(StageError):
    """Said already, by an inner block that saw more."""


REMEDY = "Make room there (press store gc --max-size SIZE) or set PRESS_HOME to a larger disk, then run again"


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(text in str(error) for text in FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _nearest(path: Path) -> Path:
    return path if path.exists() else _nearest(path.parent)
