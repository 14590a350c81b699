"""The table of the benchmark, markdown: seconds of press, and of the others with their ratio to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.staleness.judge import Score


@dataclass(frozen=True)
class Timing:
    """Median seconds of one tool in one row; `note` says what it failed to do in them."""

    seconds: float
    note: str = ""


def table(tools: Sequence[str], timings: Mapping[str, Mapping[str, Timing]], scores: Mapping[str, Score] | None) -> str:
    """Markdown; `timings`: row → tool → its timing, `scores`: tool → its score. The first tool is the measure."""
    lines = ["| | " + " | ".join(tools) + " |", "|---|" + "--:|" * len(tools)]
    lines += [_line(row, [_timing(cells, tool, tools[0]) for tool in tools]) for row, cells in timings.items()]
    if scores:
        stale = [_count(scores, tool, "served_stale") for tool in tools]
        needless = [_count(scores, tool, "needless") for tool in tools]
        lines += [_line("wrong: stale served as fresh", stale), _line("wrong: work that need not be", needless)]
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _timing(cells: Mapping[str, Timing], tool: str, measure: str) -> str:
    if tool not in cells:
        return "—"
    seconds = cells[tool].seconds
    shown = f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    if tool != measure and measure in cells:
        shown += f" ({seconds / cells[measure].seconds:.2g}×)"
    return f"{shown}, {cells[tool].note}" if cells[tool].note else shown


def _count(scores: Mapping[str, Score], tool: str, what: str) -> str:
    return f"{getattr(scores[tool], what)} of {scores[tool].asked}" if tool in scores else "—"
