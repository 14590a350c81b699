"""What reruns saved: for each stage of each run the seconds and bytes that were not spent, kept in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resources.store.store import Entry, Store


@dataclass(frozen=True)
class Saving:
    """What one stage of one run spent and saved.

    seconds: what the stage took in this run. saved_seconds: what computing its artifact took when it was computed,
    less `seconds`. saved_bytes: the size of the artifact that was not written again. Both 0 for a computed stage.
    """

    at: str
    experiment: str
    stage: str
    outcome: str
    seconds: float
    saved_seconds: float
    saved_bytes: int


def saving(store: Store, experiment: str, stage: str, outcome: str, seconds: float, entry: Entry) -> Saving:
    """The saving of a stage that ended with `outcome` and has the artifact `entry`."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    if outcome == "computed":
        return Saving(at, experiment, stage, outcome, seconds, 0.0, 0)
    saved = max(0.0, entry.seconds - seconds)
    return Saving(at, experiment, stage, outcome, seconds, saved, store.manifest(entry.digest).bytes)


class Savings:
    """The savings of every run under `home`."""

    def __init__(self, home: Path) -> None:
        self._file = home / "savings.sqlite"

    def add(self, savings: Iterable[Saving]) -> None:
        """Keep `savings`, all of them or, where the process is killed, none."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection, connection:
            connection.execute(SCHEMA)
            connection.executemany(INSERT, [astuple(one) for one in savings])

    def sums(self, experiment: str | None = None) -> list[dict[str, Any]]:
        """For each experiment and stage: times computed and reused, what was spent and saved, first and last time."""
        if not self._file.exists():
            return []
        where, values = ("WHERE experiment = ?", [experiment]) if experiment else ("", [])
        with self._open() as connection:
            rows = connection.execute(SUMS.format(where=where), values)
            names = [column[0] for column in rows.description]
            return [dict(zip(names, row, strict=True)) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=30)) as connection:
            yield connection


COLUMNS = tuple(field.name for field in fields(Saving))
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS savings (at TEXT NOT NULL, experiment TEXT NOT NULL, stage TEXT NOT NULL, "
    "outcome TEXT NOT NULL, seconds REAL NOT NULL, saved_seconds REAL NOT NULL, saved_bytes INTEGER NOT NULL)"
)
INSERT = f"INSERT INTO savings ({', '.join(COLUMNS)}) VALUES ({', '.join('?' for _ in COLUMNS)})"
SUMS = """
SELECT experiment, stage, SUM(outcome = 'computed') AS computed, SUM(outcome != 'computed') AS reused,
       SUM(seconds) AS seconds, SUM(saved_seconds) AS saved_seconds, SUM(saved_bytes) AS saved_bytes,
       MIN(at) AS first_at, MAX(at) AS last_at
FROM savings {where} GROUP BY experiment, stage ORDER BY experiment, MIN(rowid)
"""


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of `rows` (from Savings.sums) over all experiments and stages."""
    names = ("computed", "reused", "seconds", "saved_seconds", "saved_bytes")
    return {name: sum(row[name] for row in rows) for name in names}
