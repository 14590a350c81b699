"""Turns: one run of an experiment at a time, wherever it was started, or Dagster would be told two stories at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from resources.errors import StageError

OnWait = Callable[[str], None]
PATIENCE = 0.5  # seconds before waiting is worth a word
FOR_EVER = -1


class Turns:
    """The turns of the experiments under `home`; the operating system ends a turn with the process that has it."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "runs"
        self._held: dict[str, FileLock] = {}

    @contextmanager
    def take(self, experiment: str, on_wait: OnWait) -> Iterator[None]:
        """Have the turn of `experiment` inside the block; `on_wait` gets a line when another run has it."""
        self.hold([experiment], on_wait)
        try:
            yield
        finally:
            self._held.pop(experiment).release()

    @contextmanager
    def take_if_free(self, experiment: str) -> Iterator[bool]:
        """Have the turn of `experiment` if no run has it; the value says whether it is had."""
        lock = self._lock(experiment)
        if not self._acquired(lock, 0):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def hold(self, experiments: Iterable[str], on_wait: OnWait) -> None:
        """Have the turns of `experiments` until this process ends; what it has already stays as it is.

        They are taken in one order everywhere, so that two runs of several experiments never wait for each other.
        """
        for experiment in sorted(set(experiments) - self._held.keys()):
            lock = self._lock(experiment)
            if not self._acquired(lock, PATIENCE):
                on_wait(f"another run of {experiment} is in progress; waiting for its end")
                self._acquired(lock, FOR_EVER)
            self._held[experiment] = lock

    def began(self, experiment: str) -> float:
        """When the turn of `experiment` was last taken, in seconds since 1970."""
        return self._file(experiment).stat().st_mtime

    def known(self) -> list[str]:
        """The experiments that ever had a turn."""
        return sorted(file.stem for file in self._folder.glob("*.lock"))

    def _lock(self, experiment: str) -> FileLock:
        # A lock that is a mere file would outlive its process, so a file system without real ones is refused.
        return FileLock(self._file(experiment), thread_local=False, fallback_to_soft=False)

    def _acquired(self, lock: FileLock, timeout: float) -> bool:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout)
            os.utime(lock.lock_file)
        except Timeout:
            return False
        except OSError as error:
            what = f"{self._folder} cannot be written ({error.strerror})"
            raise StageError("PRESS_HOME", what, "Make it writable or set PRESS_HOME to another folder") from error
        return True

    def _file(self, experiment: str) -> Path:
        return self._folder / f"{experiment}.lock"
