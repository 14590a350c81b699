"""A GPU for each stage: who computes on one holds its lease, which the operating system ends with the process.

Leases are those of one user on one machine, whatever PRESS_HOME is. What other users and programs run on a GPU is seen
in its free memory only, so the freest one is taken first.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from resources.errors import StageError
from resources.gpu import Gpu, Gpus

LOOK_SECONDS = 0.5


def lease_folder() -> Path:
    """Where the leases of this user lie on this machine."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"olive-press-gpus-{user}"


class GpuLeases:
    """Leases of the GPUs that `gpus` tells of."""

    def __init__(self, gpus: Gpus, folder: Path | None = None) -> None:
        self._gpus = gpus
        self._folder = folder or lease_folder()

    @contextmanager
    def take(self, among: Sequence[Gpu], on_wait: Callable[[str], None]) -> Iterator[Gpu]:
        """One of `among` that no other stage computes on, inside the block; `on_wait` gets a line when all are busy."""
        gpu, lock = self._acquired(among, on_wait)
        try:
            yield gpu
        finally:
            lock.release()

    def _acquired(self, among: Sequence[Gpu], on_wait: Callable[[str], None]) -> tuple[Gpu, FileLock]:
        is_told = False
        while True:
            for gpu in sorted(among, key=self._used_share):
                lock = self._lock(gpu)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                except OSError as error:
                    what = f"{self._folder} cannot be written ({error.strerror})"
                    remedy = "Remove it or set TMPDIR to another folder"
                    raise StageError("the lease of a GPU", what, remedy) from error
                return gpu, lock
            if not is_told:
                on_wait(f"other stages compute on {_all(among)}; waiting for the end of one")
                is_told = True
            time.sleep(LOOK_SECONDS)

    def _used_share(self, gpu: Gpu) -> float:
        """The part of its memory that is in use, in tenths: a little more or less decides nothing."""
        free = self._gpus.free_memory(gpu)
        return 0.0 if free is None or not gpu.memory else round(1 - free / gpu.memory, 1)

    def _lock(self, gpu: Gpu) -> FileLock:
        with suppress(OSError):  # told by the lock, which cannot be taken there
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A lock that is a mere file would outlive its process, so a file system without real ones is refused.
        return FileLock(self._folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', gpu.uuid)}.lock", fallback_to_soft=False)


def _all(gpus: Sequence[Gpu]) -> str:
    return f"the GPU ({gpus[0].name})" if len(gpus) == 1 else f"all {len(gpus)} GPUs"
