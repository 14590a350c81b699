"""Use: the modification time of a manifest is when its artifact was last wanted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resources.store.lease import lock_file


def mark_used(manifest: Path) -> None:
    """Say that the artifact is wanted now; a FileNotFoundError when it was freed.

    Whoever frees it holds the manifest alone meanwhile, so what was marked is there until somebody looks again.
    """
    now = time.time_ns()
    try:
        with lock_file(manifest, shared=True, wait=True) as descriptor:
            if not os.fstat(descriptor).st_nlink:
                raise FileNotFoundError(str(manifest))
            os.utime(manifest, ns=(now, now))
    except FileNotFoundError:
        raise
    except OSError:  # a store that cannot be written serves all the same
        return


@contextmanager
def hold_unused(manifest: Path) -> Iterator[int | None]:
    """When the artifact was last used, in ns since 1970, which stays so inside the block; None when it is used now."""
    try:
        with lock_file(manifest, shared=False, wait=False) as descriptor:
            yield os.fstat(descriptor).st_mtime_ns
    except BlockingIOError:
        yield None
