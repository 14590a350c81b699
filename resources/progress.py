"""How a stage tells how far it is: one protocol, shown in a terminal, in Dagster's log or kept for a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """What a stage reports while it works."""

    def log(self, message: str) -> None:
        """One line for the log."""
        ...

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps of `what` are finished; `note` is a short live figure (a loss, say)."""
        ...


@dataclass
class RecordedProgress:
    """Keeps what was reported; for tests and for callers that show nothing."""

    lines: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    def log(self, message: str) -> None:
        self.lines.append(message)

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((what, done, total))
