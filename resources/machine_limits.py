"""The cores and the memory that this process may use: those of the machine, or fewer where a container limits them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


class Room(NamedTuple):
    """Bytes of memory: those that can still be had, and all."""

    free: int
    whole: int


def cores(root: Path = CGROUPS, own: Path = OWN) -> int:
    """The cores that this process may keep busy, at least one."""
    known = visible_cores()
    quotas = [_ratio(folder) for folder in _groups("cpu", root, own)]
    return max(1, min([known, *(ceil(quota) for quota in quotas if quota is not None)]))


def visible_cores() -> int:
    """The cores that programs see, and begin a thread on each of."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(root: Path = CGROUPS, own: Path = OWN) -> Room:
    """The memory that this process can have, swap included."""
    import psutil

    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    rooms = [Room(ram.available + swap.free, ram.total + swap.total)]
    rooms += [room for folder in _groups("memory", root, own) if (room := _limit(folder)) is not None]
    return min(rooms)


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The control groups that this process is in, version 1 or 2, from its own up to the top."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, names, group = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        for part in (PurePosixPath(group), *PurePosixPath(group).parents):
            yield top / str(part).strip("/")


def _ratio(folder: Path) -> float | None:
    """Cores that the group may keep busy; None where it has no limit of its own."""
    told = _words(folder / "cpu.max") or [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
    if len(told) != 2 or told[0] in ("max", "-1"):
        return None
    return int(told[0]) / int(told[1])


def _limit(folder: Path) -> Room | None:
    """Room in the group; what it keeps of files that nobody reads now counts as free."""
    for limit, used, kept in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        told = _words(folder / limit)
        if told and told[0] != "max":
            statistics = _words(folder / "memory.stat")
            numbers = dict(zip(statistics[::2], statistics[1::2], strict=False))
            whole, taken = int(told[0]), int(_words(folder / used)[0])
            return Room(max(0, whole - taken + int(numbers.get(kept, 0))), whole)
    return None


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.is_file() else []
