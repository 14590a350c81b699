"""The progress that an Olive pass of ours reports to: set around a workflow, read inside the pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from resources.progress import Progress, RecordedProgress

_channel: ContextVar[Progress | None] = ContextVar("olive_progress", default=None)


@contextmanager
def reporting_to(progress: Progress | None) -> Iterator[None]:
    """Inside the block, passes that run in this thread report to `progress`."""
    token = _channel.set(progress)
    try:
        yield
    finally:
        _channel.reset(token)


def current_progress() -> Progress:
    """The progress of the workflow that is running; outside of one, a progress that nobody reads."""
    return _channel.get() or RecordedProgress()
