"""Plans and store listings as tables for a terminal."""

from __future__ import annotations

import difflib
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestration.planner import Plan, Reason

LONG_TEXT = 60
STYLES = {"fresh": "green", "restore": "cyan", "run": "yellow", "maybe": "yellow", "blocked": "red"}


def show_plan(planned: Plan) -> None:
    """One row for each stage: status, expected seconds, what changed from which value to which."""
    table = Table(title=planned.experiment.name, title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "status", "seconds", "why"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for one in planned.stages:
        seconds = "?" if one.expected_seconds is None else f"{one.expected_seconds:.1f}"
        why = "\n".join(_sentence(reason) for reason in one.reasons)
        table.add_row(one.stage.name, f"[{STYLES[one.status]}]{one.status}[/]", seconds, why)
    Console().print(table)


def _sentence(reason: Reason) -> str:
    if isinstance(reason.was, str) and isinstance(reason.now, str) and "\n" in reason.was + reason.now:
        diff = difflib.unified_diff(reason.was.splitlines(), reason.now.splitlines(), "was", "now", lineterm="", n=1)
        return reason.ingredient + ":\n" + "\n".join(diff)
    return f"{reason.ingredient}: {_short(reason.was)} → {_short(reason.now)}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= LONG_TEXT else text[:LONG_TEXT] + "…"


def show_entries(rows: list[dict[str, Any]]) -> None:
    """One row for each artifact of the store."""
    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "digest", "experiment", "MB", "seconds", "built at"):
        table.add_column(column, justify="right" if column in ("MB", "seconds") else "left")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f}"
        table.add_row(
            row["recipe"], row["digest"][:12], row["experiment"] or "", size, f"{row['seconds']:.1f}", row["built_at"]
        )
    Console().print(table)
