"""Dagster's instance: what it recorded, and what is told to it outside a run, restores and observations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from assets.recipes import SOURCES, STAGE_NAMES
from assets.stage import Stage
from orchestration.kept_facts import KeptFacts
from orchestration.metadata import metadata
from orchestration.recorded import (
    DATA_VERSION,
    INPUT_DATA_VERSION,
    History,
    Recorded,
    recorded_from,
)
from orchestration.savings import Saving
from resources.store.store import Entry

OUTCOME_TAG = "press/outcome"
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


def version_tags(stage: Stage, entry: Entry, inputs: Mapping[str, str], outcome: str) -> dict[str, str]:
    """The tags that tell Dagster what a materialization holds and was made from; its Unsynced marks read them."""
    experiment = stage.experiment.name
    return {
        "dagster/code_version": stage.code_version(),
        DATA_VERSION: entry.digest,
        "dagster/data_version_is_user_provided": "true",
        **{f"{INPUT_DATA_VERSION}{experiment}/{name}": version for name, version in inputs.items()},
        OUTCOME_TAG: outcome,
    }


def report_restored(
    instance: dg.DagsterInstance,
    kept: KeptFacts,
    stage: Stage,
    entry: Entry,
    inputs: Mapping[str, str],
    saving: Saving,
) -> None:
    """Record that the artifact in the store is the stage's again; nothing runs and no bytes move."""
    experiment = stage.experiment.name
    pointers = {f"dagster/input_event_pointer/{experiment}/{name}": "NULL" for name in inputs}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key(experiment, stage.name),
            tags=version_tags(stage, entry, inputs, "restored") | pointers,
            metadata=metadata(stage, kept, entry, inputs, saving),
        )
    )


def report_observations(
    instance: dg.DagsterInstance, experiment: str, observed: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    """Record the data version of every source that differs from the one that was last `observed`."""
    for name, version in versions.items():
        if observed.get(name) != version:
            tags = {DATA_VERSION: version, "dagster/data_version_is_user_provided": "true"}
            instance.report_runless_asset_event(dg.AssetObservation(asset_key(experiment, name), tags=tags))
