"""Which process executes a run and whether it still lives; tagged on the run, and read without importing Dagster."""

from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil

PROCESS_TAG = "press/process"
UNFINISHED = ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def process_tags() -> dict[str, str]:
    """The tag by which a later run finds out whether this process still lives."""
    return {PROCESS_TAG: _identity(os.getpid(), psutil.Process().create_time())}


def is_gone(process: str) -> bool:
    """Whether the process that `process_tags` named was one of this host and has ended."""
    host, pid, _ = process.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return _identity(int(pid), psutil.Process(int(pid)).create_time()) != process
    except psutil.NoSuchProcess:
        return True


def has_interrupted_run(home: Path) -> bool:
    """Whether Dagster still waits for a run whose process is gone; no, where it keeps its runs in another storage."""
    file = home / "dagster" / "history" / "runs.db"
    if not file.exists():
        return False
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        marks = ", ".join("?" * len(UNFINISHED))
        rows = connection.execute(
            "SELECT value FROM runs JOIN run_tags ON run_tags.run_id = runs.run_id "
            f"WHERE key = ? AND status IN ({marks})",
            [PROCESS_TAG, *UNFINISHED],
        ).fetchall()
    return any(is_gone(process) for (process,) in rows)


def _identity(pid: int, created: float) -> str:
    return f"{socket.gethostname()}:{pid}:{created:.2f}"
