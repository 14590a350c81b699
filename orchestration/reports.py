"""What is told to Dagster outside a run: what was restored, and what the sources are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from assets.stage import Stage
from orchestration.metadata import Value
from orchestration.recorded import DATA_VERSION, INPUT_DATA_VERSION
from orchestration.runless import SqliteEvents
from resources.store.store import Entry

OUTCOME_TAG = "press/outcome"
USER_PROVIDED = {"dagster/data_version_is_user_provided": "true"}


class Events(Protocol):
    """Where events that belong to no run are written."""

    def materialized(self, asset: list[str], tags: Mapping[str, str], metadata: Mapping[str, Value]) -> None:
        """Record a materialization of the asset with this path."""
        ...

    def observed(self, asset: list[str], tags: Mapping[str, str]) -> None:
        """Record an observation of the asset with this path."""
        ...


@contextmanager
def open_events(home: Path) -> Iterator[Events]:
    """Where to write under `home`: Dagster's SQLite files, or Dagster itself where their form is not known."""
    events = SqliteEvents(home)
    if events.is_writable():
        yield events
        return
    from orchestration.history import InstanceEvents, open_instance

    with open_instance(home) as instance:
        yield InstanceEvents(instance)


def version_tags(stage: Stage, entry: Entry, inputs: Mapping[str, str], outcome: str) -> dict[str, str]:
    """The tags that tell Dagster what a materialization holds and was made from; its Unsynced marks read them."""
    experiment = stage.experiment.name
    return {
        "dagster/code_version": stage.code_version(),
        DATA_VERSION: entry.digest,
        **USER_PROVIDED,
        **{f"{INPUT_DATA_VERSION}{experiment}/{name}": version for name, version in inputs.items()},
        OUTCOME_TAG: outcome,
    }


def report_restored(
    events: Events, stage: Stage, entry: Entry, inputs: Mapping[str, str], metadata: Mapping[str, Value]
) -> None:
    """Record that the artifact in the store is the stage's again; nothing runs and no bytes move."""
    experiment = stage.experiment.name
    pointers = {f"dagster/input_event_pointer/{experiment}/{name}": "NULL" for name in inputs}
    tags = version_tags(stage, entry, inputs, "restored") | pointers
    events.materialized([experiment, stage.name], tags, metadata)


def report_observations(
    events: Events, experiment: str, observed: Mapping[str, str], versions: Mapping[str, str]
) -> None:
    """Record the data version of every source that differs from the one that was last `observed`."""
    for name, version in versions.items():
        if observed.get(name) != version:
            events.observed([experiment, name], {DATA_VERSION: version, **USER_PROVIDED})
