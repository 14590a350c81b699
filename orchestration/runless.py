"""Events that belong to no run, written into Dagster's SQLite files as Dagster writes them.

Importing Dagster to tell it of a restore takes three times as long as the restore. The documents below are what
Dagster's serdes makes of the same events; test_reports holds the two against each other, row by row.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestration.metadata import Markdown, Table, Value
from orchestration.recorded import DATA_VERSION, SqliteRecords, has_known_schema

DAGSTER = "1.13.27"  # whose documents these are; with another version Dagster writes them itself
Document = dict[str, Any]


class SqliteEvents:
    """Writes events into the default storage under `home`; `is_writable` says whether that is used and known."""

    def __init__(self, home: Path) -> None:
        self._records = SqliteRecords(home)
        runs = home / "dagster" / "history" / "runs"
        self._files = (runs / ".db", runs / "index.db")  # of events without a run, and of all events on assets

    def is_writable(self) -> bool:
        if version("dagster") != DAGSTER or not all(file.exists() for file in self._files):
            return False
        return self._records.is_readable() and all(map(_has_known_schema, self._files))

    def materialized(self, asset: list[str], tags: Mapping[str, str], metadata: Mapping[str, Value]) -> None:
        materialization = {
            "__class__": "AssetMaterialization",
            "asset_key": {"__class__": "AssetKey", "path": asset},
            "description": None,
            "metadata_entries": [_metadata_entry(name, value) for name, value in metadata.items()],
            "partition": None,
            "tags": dict(tags),
        }
        data = {"__class__": "StepMaterializationData", "asset_lineage": [], "materialization": materialization}
        self._write("ASSET_MATERIALIZATION", asset, data, tags[DATA_VERSION])

    def observed(self, asset: list[str], tags: Mapping[str, str]) -> None:
        observation = {
            "__class__": "AssetObservation",
            "asset_key": {"__class__": "AssetKey", "path": asset},
            "description": None,
            "metadata_entries": [],
            "partition": None,
            "tags": dict(tags),
        }
        data = {"__class__": "AssetObservationData", "asset_observation": observation}
        self._write("ASSET_OBSERVATION", asset, data, tags[DATA_VERSION])

    def _write(self, kind: str, asset: list[str], data: Document, data_version: str) -> None:
        now = time.time()
        event = _event(kind, data, now)
        stamp = datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
        path = json.dumps(asset)
        row = ("", _text(event), kind, stamp, path)
        for file in self._files:
            with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
                storage_id = connection.execute(INSERT_EVENT, row).lastrowid
                if file.name == "index.db":
                    connection.execute(INSERT_TAG, (storage_id, path, DATA_VERSION, data_version, stamp))
                    record = {"__class__": "EventLogRecord", "event_log_entry": event, "storage_id": storage_id}
                    is_materialization = kind == "ASSET_MATERIALIZATION"
                    latest = (path, _text(record) if is_materialization else None, "" if is_materialization else None)
                    connection.execute(UPSERT_ASSET, (*latest, stamp))


def _has_known_schema(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        return has_known_schema(connection)


INSERT_EVENT = "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key) VALUES (?, ?, ?, ?, ?)"
INSERT_TAG = "INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp) VALUES (?, ?, ?, ?, ?)"
UPSERT_ASSET = """
INSERT INTO asset_keys (asset_key, last_materialization, last_run_id, last_materialization_timestamp)
VALUES (?, ?, ?, ?)
ON CONFLICT (asset_key) DO UPDATE SET
    last_materialization = coalesce(excluded.last_materialization, last_materialization),
    last_run_id = coalesce(excluded.last_run_id, last_run_id),
    last_materialization_timestamp = excluded.last_materialization_timestamp
"""


def _text(document: Document) -> str:
    return json.dumps(document, sort_keys=True)


def _event(kind: str, data: Document, timestamp: float) -> Document:
    return {
        "__class__": "EventLogEntry",
        "dagster_event": {
            "__class__": "DagsterEvent",
            "event_specific_data": data,
            "event_type_value": kind,
            "logging_tags": {},
            "message": None,
            "pid": None,
            "pipeline_name": "",
            "solid_handle": None,
            "step_handle": None,
            "step_key": None,
            "step_kind_value": None,
        },
        "error_info": None,
        "level": 20,
        "message": "",
        "pipeline_name": "",
        "run_id": "",
        "step_key": None,
        "timestamp": timestamp,
        "user_message": "",
    }


def _metadata_entry(name: str, value: Value) -> Document:
    return {"__class__": "EventMetadataEntry", "description": None, "entry_data": _metadata(value), "label": name}


def _metadata(value: Value) -> Document:
    match value:
        case str():
            return {"__class__": "TextMetadataEntryData", "text": value}
        case int():
            return {"__class__": "IntMetadataEntryData", "value": value}
        case float():
            return {"__class__": "FloatMetadataEntryData", "value": value}
        case Markdown():
            return {"__class__": "MarkdownMetadataEntryData", "md_str": value.text}
        case Table():
            return {
                "__class__": "TableMetadataEntryData",
                "records": [{"__class__": "TableRecord", "data": row} for row in value.rows],
                "schema": _schema(value.columns),
            }


def _schema(columns: Mapping[str, str]) -> Document:
    free = {"__class__": "TableColumnConstraints", "nullable": True, "other": [], "unique": False}
    return {
        "__class__": "TableSchema",
        "columns": [
            {"__class__": "TableColumn", "constraints": free, "description": None, "name": name, "type": kind}
            for name, kind in columns.items()
        ],
        "constraints": {"__class__": "TableConstraints", "other": []},
    }
