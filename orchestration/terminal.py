"""What `press run` shows while stages run; in the Dagster UI the silent form takes its place."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from orchestration.savings import Saving
from resources.errors import PressError

MARKS = {
    "computed": "●",
    "reused": "○",
    "restored": "○",
    "fresh": "·",
    "not_selected": "-",
    "blocked": "✗",
    "failed": "✗",
}


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage in a run."""

    stage: str
    outcome: str
    seconds: float = 0.0
    data_version: str | None = None
    error: PressError | None = None
    saved_seconds: float = 0.0
    saved_bytes: int = 0


class Terminal:
    """Keeps what became of each stage; shows nothing."""

    def __init__(self, force: Iterable[str] = ()) -> None:
        self.outcomes: dict[str, StageOutcome] = {}
        self._force = frozenset(force)

    def is_forced(self, stage: str) -> bool:
        """Whether the user asked to compute `stage` even though the store holds it."""
        return stage in self._force

    def waiting(self, line: str) -> None:
        """Called with what is waited for, once for each wait that takes a while."""

    def warned(self, line: str) -> None:
        """Called with what is not as it should be and stops nothing."""

    def stage_started(self, stage: str) -> None:
        """Called when a stage's body begins."""

    def stage_finished(self, saving: Saving, data_version: str) -> None:
        """Called with what a stage spent and saved that was "computed", "reused", "restored" or "fresh"."""
        self._keep(
            StageOutcome(
                saving.stage,
                saving.outcome,
                saving.seconds,
                data_version,
                saved_seconds=saving.saved_seconds,
                saved_bytes=saving.saved_bytes,
            )
        )

    def stage_failed(self, stage: str, error: PressError, blocked: bool = False) -> None:
        """Called with what stopped the stage; `blocked` says that a gate did."""
        self._keep(StageOutcome(stage, "blocked" if blocked else "failed", error=error))

    def stage_not_selected(self, stage: str) -> None:
        """Called for a stage that the user left out."""
        self._keep(StageOutcome(stage, "not_selected"))

    def _keep(self, outcome: StageOutcome) -> None:
        self.outcomes[outcome.stage] = outcome


class ShownTerminal(Terminal):
    """The same, with a line on standard error for each stage as it begins and ends."""

    def __init__(self, force: Iterable[str] = ()) -> None:
        super().__init__(force)
        self._console = Console(stderr=True, highlight=False)

    def waiting(self, line: str) -> None:
        self._console.print(f"  [dim]{line}[/dim]")

    def warned(self, line: str) -> None:
        self._console.print(f"press: warning: {line}", style="yellow", markup=False, soft_wrap=True)

    def stage_started(self, stage: str) -> None:
        if sys.stderr.isatty():
            self._console.print(f"  [dim]… {stage}[/dim]")

    def _keep(self, outcome: StageOutcome) -> None:
        super()._keep(outcome)
        seconds = f"{outcome.seconds:7.1f} s" if outcome.outcome in ("computed", "reused") else " " * 9
        version = outcome.data_version[:12] if outcome.data_version else ""
        mark = MARKS[outcome.outcome]
        self._console.print(f"  {mark} {outcome.stage:<17}{outcome.outcome:<13}{seconds}  [dim]{version}[/dim]")
