"""Dagster's instance: what it recorded, and events that belong to no run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from assets.recipes import SOURCES, STAGE_NAMES
from orchestration.metadata import Markdown, Table, Value
from orchestration.recorded import DATA_VERSION, History, Recorded, recorded_from

NO_COMPUTE_LOGS = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
# Runs start from the webserver itself: without a daemon the queue, Dagster's default, would never be served.
DAGSTER_YAML = """\
telemetry:
  enabled: false
run_coordinator:
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
"""


def dagster_home(home: Path) -> Path:
    """DAGSTER_HOME under `home`, made with telemetry off where it is missing."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        settings.write_text(DAGSTER_YAML)
    return folder


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance under `home` for the press command; the caller closes it (it is a context manager).

    Standard output and error stay with the terminal, which Dagster's compute logs would take from child processes.
    """
    folder = str(dagster_home(home))
    os.environ["DAGSTER_HOME"] = folder
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(folder, overrides={"compute_logs": NO_COMPUTE_LOGS}))


def asset_key(experiment: str, name: str) -> dg.AssetKey:
    return dg.AssetKey([experiment, name])


def group_name(experiment: str) -> str:
    """The experiment's name in the characters that Dagster accepts for groups and sensors."""
    return re.sub(r"[^A-Za-z0-9_]", "_", experiment)


class InstanceRecords:
    """Records through Dagster's API, whatever storage it keeps them in."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def histories(self, experiments: Iterable[str]) -> dict[str, History]:
        names = list(experiments)
        stages = [asset_key(experiment, stage) for experiment in names for stage in STAGE_NAMES]
        found: dict[str, dict[str, Recorded]] = {name: {} for name in names}
        for record in self._instance.get_asset_records(stages):
            experiment, stage = record.asset_entry.asset_key.path
            if recorded := _recorded(record):
                found[experiment][stage] = recorded
        return {name: History(found[name], self._observed(name)) for name in names}

    def latest(self, stage: str) -> Recorded | None:
        keys = [key for key in self._instance.get_asset_keys() if key.path[1:] == [stage]]
        found = [recorded for record in self._instance.get_asset_records(keys) if (recorded := _recorded(record))]
        return max(found, key=lambda recorded: recorded.storage_id, default=None)

    def _observed(self, experiment: str) -> dict[str, str]:
        observed: dict[str, str] = {}
        for source in SOURCES:
            key = asset_key(experiment, source.name)
            events = [
                *self._instance.fetch_observations(key, limit=1).records,
                *self._instance.fetch_materializations(key, limit=1).records,
            ]
            if events:
                newest = max(events, key=lambda event: event.storage_id)
                event = newest.asset_observation or newest.asset_materialization
                observed[source.name] = ((event.tags if event else None) or {}).get(DATA_VERSION, "")
        return observed


def _recorded(record: dg.AssetRecord) -> Recorded | None:
    latest = record.asset_entry.last_materialization_record
    materialization = latest.asset_materialization if latest else None
    if latest is None or materialization is None:
        return None
    key = materialization.metadata.get("key")
    key_id = key.value if isinstance(key, dg.TextMetadataValue) else None
    return recorded_from(materialization.tags or {}, key_id, latest.run_id, latest.storage_id)


class InstanceEvents:
    """Events through Dagster's API, whatever storage it writes them to."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def materialized(self, asset: list[str], tags: Mapping[str, str], metadata: Mapping[str, Value]) -> None:
        event = dg.AssetMaterialization(dg.AssetKey(asset), tags=tags, metadata=dagster_metadata(metadata))
        self._instance.report_runless_asset_event(event)

    def observed(self, asset: list[str], tags: Mapping[str, str]) -> None:
        self._instance.report_runless_asset_event(dg.AssetObservation(dg.AssetKey(asset), tags=tags))


def dagster_metadata(values: Mapping[str, Value]) -> dict[str, dg.MetadataValue[Any]]:
    """`values` as Dagster's metadata."""
    return {name: _metadata_value(value) for name, value in values.items()}


def _metadata_value(value: Value) -> dg.MetadataValue[Any]:
    match value:
        case str():
            return dg.MetadataValue.text(value)
        case int():
            return dg.MetadataValue.int(value)
        case float():
            return dg.MetadataValue.float(value)
        case Markdown():
            return dg.MetadataValue.md(value.text)
        case Table():
            columns = [dg.TableColumn(name, kind) for name, kind in value.columns.items()]
            return dg.MetadataValue.table([dg.TableRecord(row) for row in value.rows], dg.TableSchema(columns))
