"""What Dagster recorded, and what is told to it outside a run: restores and observations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from assets.recipes import STAGE_NAMES
from assets.stage import Stage
from orchestration.metadata import Outcome, metadata
from resources.store.store import Entry, Store

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


@dataclass(frozen=True)
class Recorded:
    """The latest materialization of one stage, as its tags tell it."""

    data_version: str
    code_version: str
    key_id: str | None
    inputs: Mapping[str, str]
    run_id: str


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


def recorded_materializations(instance: dg.DagsterInstance, experiment: str) -> dict[str, Recorded]:
    """Stage name → its latest materialization; stages that never were are left out."""
    found: dict[str, Recorded] = {}
    for record in instance.get_asset_records([asset_key(experiment, name) for name in STAGE_NAMES]):
        event = record.asset_entry.last_materialization
        if event is None or event.asset_materialization is None:
            continue
        tags = event.asset_materialization.tags or {}
        prefix = f"dagster/input_data_version/{experiment}/"
        found[record.asset_entry.asset_key.path[-1]] = Recorded(
            data_version=tags.get("dagster/data_version", ""),
            code_version=tags.get("dagster/code_version", ""),
            key_id=_text(event.asset_materialization.metadata.get("key")),
            inputs={tag.removeprefix(prefix): value for tag, value in tags.items() if tag.startswith(prefix)},
            run_id=event.run_id,
        )
    return found


def _text(value: object) -> str | None:
    return value.value if isinstance(value, dg.TextMetadataValue) else None


def version_tags(stage: Stage, entry: Entry, inputs: Mapping[str, str], outcome: str) -> dict[str, str]:
    """The tags that tell Dagster what a materialization holds and was made from; its Unsynced marks read them."""
    experiment = stage.experiment.name
    return {
        "dagster/code_version": stage.code_version(),
        "dagster/data_version": entry.digest,
        "dagster/data_version_is_user_provided": "true",
        **{f"dagster/input_data_version/{experiment}/{name}": version for name, version in inputs.items()},
        OUTCOME_TAG: outcome,
    }


def report_restored(
    instance: dg.DagsterInstance, store: Store, stage: Stage, entry: Entry, inputs: Mapping[str, str]
) -> None:
    """Record that the artifact in the store is the stage's again; nothing runs and no bytes move."""
    experiment = stage.experiment.name
    pointers = {f"dagster/input_event_pointer/{experiment}/{name}": "NULL" for name in inputs}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key(experiment, stage.name),
            tags=version_tags(stage, entry, inputs, "restored") | pointers,
            metadata=metadata(stage, store, entry, inputs, Outcome("restored", 0.0)),
        )
    )


def report_observations(instance: dg.DagsterInstance, experiment: str, versions: Mapping[str, str]) -> None:
    """Record the data version of every source that differs from the one last observed."""
    observed = _observed(instance, experiment, versions)
    for name, version in versions.items():
        if observed.get(name) != version:
            tags = {"dagster/data_version": version, "dagster/data_version_is_user_provided": "true"}
            instance.report_runless_asset_event(dg.AssetObservation(asset_key(experiment, name), tags=tags))


def _observed(instance: dg.DagsterInstance, experiment: str, names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for record in instance.get_asset_records([asset_key(experiment, name) for name in names]):
        event = record.asset_entry.last_observation
        if event is not None and event.asset_observation is not None:
            found[record.asset_entry.asset_key.path[-1]] = (event.asset_observation.tags or {}).get(
                "dagster/data_version", ""
            )
    return found
