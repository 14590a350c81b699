"""What Dagster recorded of experiments; read straight from its SQLite file, because importing Dagster takes longer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from assets.recipes import SOURCE_NAMES, STAGE_NAMES

SCHEMA = "29b539ebc72a"  # the revision of Dagster's event log that is known here; any other is left to Dagster's API
DATA_VERSION = "dagster/data_version"
INPUT_DATA_VERSION = "dagster/input_data_version/"
MANY = 20  # experiments, from which on reading every asset is cheaper than selecting


@dataclass(frozen=True)
class Recorded:
    """The latest materialization of one stage, as its tags tell it; `storage_id` tells two of them apart."""

    data_version: str
    code_version: str
    key_id: str | None
    inputs: Mapping[str, str]
    run_id: str
    storage_id: int


@dataclass(frozen=True)
class History:
    """Of one experiment: stage → its latest materialization, source → the data version last observed."""

    stages: Mapping[str, Recorded] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


class Records(Protocol):
    """Where the histories of experiments are."""

    def histories(self, experiments: Iterable[str]) -> dict[str, History]:
        """Experiment → its history; an empty one for an experiment that never ran."""
        ...

    def latest(self, stage: str) -> Recorded | None:
        """The latest materialization of `stage` in any experiment."""
        ...


@contextmanager
def open_records(home: Path) -> Iterator[Records]:
    """The records under `home`; Dagster is asked only where they are in another storage than its default."""
    records = SqliteRecords(home)
    if records.is_readable():
        yield records
        return
    from orchestration.history import InstanceRecords, open_instance

    with open_instance(home) as instance:
        yield InstanceRecords(instance)


def recorded_from(tags: Mapping[str, str], key_id: str | None, run_id: str, storage_id: int) -> Recorded:
    """The materialization that these tags describe; its inputs by name, without the experiment's."""
    return Recorded(
        data_version=tags.get(DATA_VERSION, ""),
        code_version=tags.get("dagster/code_version", ""),
        key_id=key_id,
        inputs={tag.rpartition("/")[2]: value for tag, value in tags.items() if tag.startswith(INPUT_DATA_VERSION)},
        run_id=run_id,
        storage_id=storage_id,
    )


class SqliteRecords:
    """Records in Dagster's default storage under `home`; `is_readable` says whether that is used and its form known."""

    def __init__(self, home: Path) -> None:
        self._settings = home / "dagster" / "dagster.yaml"
        self._file = home / "dagster" / "history" / "runs" / "index.db"

    def is_readable(self) -> bool:
        settings = yaml.safe_load(self._settings.read_text(encoding="utf-8")) if self._settings.exists() else None
        if {"storage", "event_log_storage"} & (settings or {}).keys():
            return False
        if not self._file.exists():
            return True  # nothing was recorded yet
        with self._open() as connection:
            return has_known_schema(connection)

    def histories(self, experiments: Iterable[str]) -> dict[str, History]:
        names = list(experiments)
        stages: dict[str, dict[str, Recorded]] = {name: {} for name in names}
        sources: dict[str, dict[str, str]] = {name: {} for name in names}
        if self._file.exists():
            with self._open() as connection:
                for (experiment, stage), recorded in _materializations(connection, names):
                    if stage in STAGE_NAMES:
                        stages[experiment][stage] = recorded
                for (experiment, name), version in _observed(connection, names):
                    sources[experiment][name] = version
        return {name: History(stages[name], sources[name]) for name in names}

    def latest(self, stage: str) -> Recorded | None:
        if not self._file.exists():
            return None
        with self._open() as connection:
            rows = connection.execute(
                "SELECT last_materialization, asset_details FROM asset_keys WHERE json_extract(asset_key, '$[1]') = ? "
                "AND last_materialization IS NOT NULL ORDER BY last_materialization_timestamp DESC LIMIT 1",
                [stage],
            )
            return next((_recorded(event, details) for event, details in rows), None)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
            yield connection


def has_known_schema(connection: sqlite3.Connection) -> bool:
    """Whether the tables are those of the one revision that is known here."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"alembic_version", "event_logs", "asset_keys", "asset_event_tags"} <= tables:
        return False
    return connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)]


def _of(experiments: list[str]) -> tuple[str, list[str]]:
    """An SQL condition, with its values, for the assets of these experiments; Dagster files an asset as JSON."""
    if len(experiments) > MANY:
        return "TRUE", []
    return " OR ".join("json_extract(asset_key, '$[0]') = ?" for _ in experiments) or "FALSE", experiments


def _asset(asset_key: str, experiments: set[str]) -> tuple[str, str] | None:
    path = json.loads(asset_key)
    return (path[0], path[1]) if len(path) == 2 and path[0] in experiments else None


def _materializations(
    connection: sqlite3.Connection, experiments: list[str]
) -> Iterator[tuple[tuple[str, str], Recorded]]:
    where, values = _of(experiments)
    columns = "asset_key, last_materialization, asset_details"
    rows = connection.execute(f"SELECT {columns} FROM asset_keys WHERE {where}", values)
    wanted = set(experiments)
    for asset_key, event, details in rows:
        asset, recorded = _asset(asset_key, wanted), _recorded(event, details)
        if asset and recorded:
            yield asset, recorded


def _recorded(event: str | None, details: str | None) -> Recorded | None:
    if event is None:
        return None
    record = json.loads(event)
    entry = record["event_log_entry"]
    wiped = json.loads(details).get("last_wipe_timestamp") if details else None
    if wiped is not None and entry["timestamp"] <= wiped:
        return None
    materialization = entry["dagster_event"]["event_specific_data"]["materialization"]
    key_id = _text(materialization["metadata_entries"], "key")
    return recorded_from(materialization["tags"] or {}, key_id, entry["run_id"], record["storage_id"])


def _text(metadata: list[dict[str, Any]], label: str) -> str | None:
    return next((entry["entry_data"].get("text") for entry in metadata if entry["label"] == label), None)


def _observed(connection: sqlite3.Connection, experiments: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Of every source the data version that its latest event tells, as far as it was not wiped since."""
    where, values = _of(experiments)
    rows = connection.execute(OBSERVED.format(where=where), [*SOURCE_NAMES, *values])
    wanted = set(experiments)
    for asset_key, version in rows:
        if asset := _asset(asset_key, wanted):
            yield asset, version or ""


# Dagster lets a source be observed and, by hand in its UI, be materialized; it goes by the later of the two.
OBSERVED = f"""
SELECT asset_key, (SELECT value FROM asset_event_tags WHERE event_id = latest AND key = '{DATA_VERSION}')
FROM (SELECT asset_key, wipe_timestamp,
             (SELECT MAX(id) FROM event_logs WHERE event_logs.asset_key = asset_keys.asset_key
              AND dagster_event_type IN ('ASSET_OBSERVATION', 'ASSET_MATERIALIZATION')) AS latest
      FROM asset_keys WHERE json_extract(asset_key, '$[1]') IN ({", ".join("?" for _ in SOURCE_NAMES)}) AND ({{where}}))
JOIN event_logs USING (asset_key) WHERE id = latest AND (wipe_timestamp IS NULL OR timestamp > wipe_timestamp)
"""
