"""One look at an experiment for its sensor, in a process of its own: `python -m orchestration.look EXPERIMENT`.

The code server that evaluates the sensor loaded specs and code when it started. A new process sees them as they are.
It prints one JSON document: a Look's fields.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel

from assets.experiment import Experiment, open_experiment
from orchestration.planner import Plan, Planner
from orchestration.recorded import open_records
from orchestration.registries import Registries
from orchestration.reports import open_events
from orchestration.restore import observe, restore_known
from orchestration.terminal import Terminal
from orchestration.turns import Turns
from resources.errors import ConfigurationError
from resources.home import press_home
from resources.store.keys import Key
from resources.store.store import Store


class Look(BaseModel, frozen=True):
    """What was found and done.

    busy: a run has the experiment's turn; nothing else was looked at.
    mistake: what is wrong with the files, where they cannot be planned.
    files: id of specs, code, tools and sources as they are. state: the same with what is left to do and was done last.
    pending: stages that need a run. blocked: stages that a gate stops. restored: stages that were stale until now.
    """

    busy: bool = False
    mistake: str | None = None
    files: str = ""
    state: str = ""
    pending: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()


def look(home: Path, name: str) -> Look:
    """Observe the sources of the experiment `name`, restore what the store holds, and say what is left to run."""
    with Turns(home).take_if_free(name) as had:
        if not had:
            return Look(busy=True)
        try:
            experiment = open_experiment(name)
            planned = _plan(home, experiment)
        except ConfigurationError as mistake:
            return Look(mistake=str(mistake))
        restorable = tuple(one.stage.name for one in planned.stages if one.status == "restore")
        if restorable or not planned.is_observed:
            _tell_dagster(home, planned, set(restorable))
            planned = _plan(home, experiment)
        return _what_is_left(planned, restorable)


def _plan(home: Path, experiment: Experiment) -> Plan:
    with open_records(home) as records:
        return Planner(Store(home), Registries(home), records).plan(experiment)


def _tell_dagster(home: Path, planned: Plan, restorable: set[str]) -> None:

    with open_events(home) as events:
        observe(planned, events)
        restore_known(planned, restorable, home, events, Terminal())


def _what_is_left(planned: Plan, restored: tuple[str, ...]) -> Look:
    by_status = {one.stage.name: one.status for one in planned.stages}
    files = {
        "sources": dict(planned.sources),
        "code": {one.stage.name: one.stage.code_version() for one in planned.stages},
    }
    recorded = {name: materialization.storage_id for name, materialization in planned.history.stages.items()}
    return Look(
        files=Key(files).id,
        state=Key(files | {"status": by_status, "recorded": recorded}).id,
        pending=tuple(name for name, status in by_status.items() if status in ("run", "maybe", "restore")),
        blocked=tuple(name for name, status in by_status.items() if status == "blocked"),
        restored=restored,
    )


if __name__ == "__main__":
    sys.stdout.write(look(press_home(), sys.argv[1]).model_dump_json() + "\n")
