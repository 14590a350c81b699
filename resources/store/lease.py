"""Leases: who may write what; the operating system takes one back when its process dies, however it dies."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from resources.errors import StageError
from resources.store.disk import FULL
from resources.store.durable import make_folder, remove_tree
from resources.store.layout import Layout

try:
    import fcntl
except ImportError:  # Windows: nobody who opens an artifact can be told from one who frees it
    fcntl = None

PATIENCE = 0.5  # seconds before waiting is worth a word: a sweep holds a lease for a moment only
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)

COMMIT = "commit"  # the owner of the one lease that all who commit, repair or free take

OnWait = Callable[[str], None]


def tree_owner(digest: str) -> str:
    """The owner of the lease of making or removing the artifact's tree."""
    return f"tree-{digest}"


class Leases:
    """Leases by owner (a key id, a tree, "commit") and the temporary folders that they protect."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @contextmanager
    def take(self, owner: str, on_wait: OnWait | None = None) -> Iterator[None]:
        """Hold the lease of `owner`; `on_wait` gets one line when another process has it."""
        lock = self._lock(owner)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            if on_wait is not None:
                on_wait(f"another run is making the same artifact ({owner[:12]}); waiting to reuse it")
            lock.acquire()
        except OSError as error:
            raise _explained(error, self._layout.root) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def take_if_free(self, owner: str) -> Iterator[bool]:
        """Hold the lease of `owner` if nobody does; the value says whether it is held."""
        lock = self._lock(owner)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        except OSError as error:
            # Whoever held it would have made its file, for which the disk has no room now.
            if error.errno not in FULL or self._layout.lease(owner).exists():
                raise
            yield True
            return
        try:
            yield True
        finally:
            lock.release()

    def is_held(self, owner: str) -> bool:
        """Whether a process holds the lease of `owner`; leaves no trace, not even where nothing can be written."""
        try:
            with lock_file(self._layout.lease(owner), shared=True, wait=False):
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    @contextmanager
    def work_folder(self, owner: str, parent: Path | None = None) -> Iterator[Path]:
        """A fresh folder to write in while the lease of `owner` is held; removed in the end, come what may.

        It lies in `parent`, by default the store's folder for what is being written.
        """
        parent = parent or self._layout.temporary
        make_folder(parent)
        self.sweep(parent, owner)
        folder = Path(tempfile.mkdtemp(prefix=f"{owner}~", dir=parent))
        try:
            yield folder
        finally:
            remove_tree(folder)

    def sweep(self, parent: Path, mine: str) -> None:
        """Remove what processes left that died while writing: their leases are free, or `mine`, which is held."""
        for folder in parent.iterdir():
            owner = folder.name.partition("~")[0]
            if owner == mine:
                remove_tree(folder)
                continue
            with self.take_if_free(owner) as taken:
                if taken:
                    remove_tree(folder)

    def _lock(self, owner: str) -> FileLock:
        try:
            make_folder(self._layout.leases)
        except OSError as error:
            raise _explained(error, self._layout.root) from error
        # A lock that is a mere file would outlive its process, so a file system without real ones is refused.
        return FileLock(self._layout.lease(owner), fallback_to_soft=False)


@contextmanager
def lock_file(path: Path | str, *, shared: bool, wait: bool) -> Iterator[int]:
    """An open descriptor of the file at `path`, locked; without `wait` a BlockingIOError when it cannot be at once."""
    # Some file systems lock for one process alone only what is open for writing.
    descriptor = os.open(path, os.O_RDONLY if shared else os.O_RDWR)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def _explained(error: OSError, root: Path) -> OSError | StageError:
    if error.errno in UNWRITABLE:
        return StageError("store", f"{root} cannot be written ({error.strerror})", "Make it writable or set PRESS_HOME")
    if error.errno == errno.ENOSYS:
        return StageError("store", f"{root} lies on a file system without file locks", "Set PRESS_HOME to a local disk")
    return error
