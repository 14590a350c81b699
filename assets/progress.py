"""Progress of a stage's child process: events in Dagster, a bar in the terminal where there is one."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from dagster_pipes import PipesContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LOG_EVERY_SECONDS = 5.0


class PipesProgress:
    """Log lines and, at most every few seconds, progress lines as Dagster events; bars on standard error."""

    def __init__(self, pipes: PipesContext, bar: bool) -> None:
        self._pipes = pipes
        self._bars = _bars() if bar and sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._logged: dict[str, float] = {}

    def __enter__(self) -> PipesProgress:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def log(self, message: str) -> None:
        self._pipes.log.info(message)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        if self._bars:
            task = self._tasks.get(what)
            if task is None:
                task = self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(task, completed=done, total=total, description=f"{what} {note}".rstrip())
        now = time.monotonic()
        if done >= total or now - self._logged.get(what, float("-inf")) >= LOG_EVERY_SECONDS:
            self._logged[what] = now
            self._pipes.log.info(f"{what} {done}/{total} {note}".rstrip())


def _bars() -> Bars:
    columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Bars(*columns, console=Console(stderr=True), transient=True)
