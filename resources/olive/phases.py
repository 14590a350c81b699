"""How long the phases of a pass take: measured where somebody asks, free where nobody does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[dict[str, float] | None] = ContextVar("phase_seconds", default=None)


@contextmanager
def timed_phases() -> Iterator[dict[str, float]]:
    """Inside the block, phases of passes that run in this thread add their seconds to the dict that it yields."""
    seconds: dict[str, float] = {}
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


@contextmanager
def phase(name: str, device: str = "cpu") -> Iterator[None]:
    """The block is part of phase `name`; its seconds count until `device` has done what it was given."""
    seconds = _seconds.get()
    if seconds is None:
        yield
        return
    start = time.perf_counter()
    yield
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
