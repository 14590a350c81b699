"""Plans and store listings as tables for a terminal."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestration.answers import say
from orchestration.explanation import Reason
from orchestration.planner import Plan
from orchestration.savings import totals
from resources.store.manifest import DIGEST
from resources.store.sizes import format_size

if TYPE_CHECKING:
    from resources.store.gc import Collected

LONG_TEXT = 60  # characters
STYLES = {"fresh": "green", "restore": "cyan", "run": "yellow", "maybe": "yellow", "blocked": "red"}


def show_plan(planned: Plan) -> None:
    """One row for each stage: status, expected seconds, what changed from which value to which."""
    table = Table(title=planned.experiment.name, title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "status", "seconds", "why"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for one in planned.stages:
        seconds = "?" if one.expected_seconds is None else f"{one.expected_seconds:.1f}"
        why = "\n".join(_sentence(reason) for reason in one.reasons)
        table.add_row(one.stage.name, f"[{STYLES[one.status]}]{one.status}[/]", seconds, escape(why))
    Console().print(table)


def _sentence(reason: Reason) -> str:
    """One ingredient: was → now; what is long as the few words or lines of it that changed."""
    if reason.diff is not None:
        return f"{reason.ingredient}:\n" + "\n".join(f"  {line}" for line in reason.diff.split("\n"))
    was, now = _text(reason.was), _text(reason.now)
    if reason.ingredient.startswith("input.") and reason.now is None:
        now = "not known yet"
    if max(len(was), len(now)) > LONG_TEXT:
        return f"{reason.ingredient}:\n" + "\n".join(f"  {line}" for line in _short_diff(was, now))
    return f"{reason.ingredient}: {was} → {now}"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:12] if DIGEST.fullmatch(text) else text


def _short_diff(was: str, now: str) -> list[str]:
    """Lines of "- " and "+ ": whole lines of a text of several, else the words around the first and last change."""
    if "\n" in was + now:
        diff = difflib.unified_diff(was.splitlines(), now.splitlines(), lineterm="", n=0)
        return [f"{line[0]} {line[1:]}" for line in diff if line[0] in "+-" and line[:3] not in ("---", "+++")]
    changes = [change for change in difflib.SequenceMatcher(None, was, now).get_opcodes() if change[0] != "equal"]
    first, last = changes[0], changes[-1]
    return [f"- {_around(was, first[1], last[2])}", f"+ {_around(now, first[3], last[4])}"]


def _around(text: str, start: int, end: int, around: int = 20) -> str:
    first, last = max(0, start - around), min(len(text), end + around)
    return ("… " if first else "") + text[first:last] + (" …" if last < len(text) else "")


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


def show_collected(done: Collected) -> None:
    """One row for each artifact that gc freed or would free, and what that comes to."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "digest", "size", "seconds to rebuild", "last used"):
        table.add_column(column, justify="right" if column in ("size", "seconds to rebuild") else "left")
    for row in done.freed:
        seconds = f"{row['seconds']:.1f}"
        table.add_row(row["stage"], row["digest"][:12], format_size(row["bytes"]), seconds, str(row["last_used"]))
    if done.freed:
        Console().print(table)
    freed = done.bytes_before - done.bytes_after
    verb = "would be freed" if done.dry_run else "freed"
    say(f"{format_size(freed)} {verb}; rebuilding that would take {done.seconds_to_rebuild:.1f} s")
    say(f"the store {'would hold' if done.dry_run else 'holds'} {format_size(done.bytes_after)}")
    if not done.reached:
        needed = format_size(done.bytes_needed)
        say(f"that is over the limit: registered models, runs and pinned experiments need {needed}")


def show_savings(rows: list[dict[str, Any]]) -> None:
    """One row for each stage of each experiment, and their sum."""
    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "stage", "computed", "reused", "seconds", "seconds saved", "saved"):
        table.add_column(column, justify="left" if column in ("experiment", "stage") else "right")
    for row in [*rows, {"experiment": "all", "stage": "", **totals(rows)}]:
        table.add_row(
            row["experiment"],
            row["stage"],
            str(row["computed"]),
            str(row["reused"]),
            f"{row['seconds']:.1f}",
            f"{row['saved_seconds']:.1f}",
            format_size(row["saved_bytes"]),
        )
    Console().print(table)
