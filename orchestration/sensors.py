"""A sensor for each experiment that keeps it up to date unattended; off until it is switched on in the UI."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from assets.experiment import Experiment, experiments_folder
from assets.recipes import STAGE_NAMES
from orchestration.history import asset_key, group_name
from orchestration.interrupted import INTERRUPTED_TAG, UNFINISHED, close_interrupted_runs
from orchestration.look import Look
from resources.home import press_home

PROJECT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_LOOKS = 30
LONGEST_LOOK = 50  # seconds; Dagster gives a sensor 60
MOST_RUNS = 6  # in a row for files that stay as they are: each stage can need one
STATE_TAG = "press/state"
FILES_TAG = "press/files"
SENSOR_TAG = "dagster/sensor_name"


def up_to_date_sensor(experiment: Experiment, seconds: int = SECONDS_BETWEEN_LOOKS) -> dg.SensorDefinition:
    """The sensor `keep_<experiment>_up_to_date`, which looks at the files every `seconds`.

    It restores at once what the store holds and requests one run for the rest, one for each state of files and history.
    """
    name = experiment.name

    @dg.sensor(
        name=f"keep_{group_name(name)}_up_to_date",
        target=dg.AssetSelection.assets(*(asset_key(name, stage) for stage in STAGE_NAMES)),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=seconds,
        description=f"Runs what is stale of {name} when its files change; what failed waits for another change.",
    )
    def keep_up_to_date(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        close_interrupted_runs(context.instance)
        if run := _unfinished_run(context.instance, name):
            return dg.SkipReason(f"run {run.run_id[:8]} of {name} is in progress")
        return _answer(context, name, _look(name))

    return keep_up_to_date


def _unfinished_run(instance: dg.DagsterInstance, experiment: str) -> dg.DagsterRun | None:
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, *UNFINISHED])):
        if any(key.path[0] == experiment for key in run.asset_selection or ()):
            return run
    return None


def _look(experiment: str) -> Look:
    """What a new process finds; one that crashes fails this tick with what it said, and the next tick looks again."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.look", experiment],
            cwd=PROJECT,
            env=os.environ | {"PRESS_HOME": str(press_home()), "PRESS_EXPERIMENTS": str(experiments_folder())},
            capture_output=True,
            text=True,
            timeout=LONGEST_LOOK,
        )
    except subprocess.TimeoutExpired:
        return Look(mistake=f"looking took more than {LONGEST_LOOK} s; the next look goes on with what is digested now")
    if done.returncode != 0:
        raise dg.Failure(f"looking at {experiment} ended with code {done.returncode}:\n{done.stderr.strip()}")
    return Look.model_validate_json(done.stdout)


def _answer(context: dg.SensorEvaluationContext, experiment: str, look: Look) -> dg.RunRequest | dg.SkipReason:
    if look.busy:
        return dg.SkipReason(f"a run of {experiment} is in progress")
    if look.mistake:
        return dg.SkipReason(look.mistake)
    if not look.pending:
        restored = f"; restored {', '.join(look.restored)}" if look.restored else ""
        blocked = f"a gate stops {', '.join(look.blocked)}; nothing else is stale" if look.blocked else ""
        return dg.SkipReason((blocked or "nothing is stale") + restored)
    instance, sensor = context.instance, context.sensor_name
    tried = instance.get_runs(dg.RunsFilter(tags={SENSOR_TAG: sensor, STATE_TAG: look.state}))
    ended = [run for run in tried if INTERRUPTED_TAG not in run.tags]
    if ended:
        return dg.SkipReason(_what_to_do(instance, ended[0], experiment))
    latest = instance.get_runs(dg.RunsFilter(tags={SENSOR_TAG: sensor}), limit=MOST_RUNS)
    if _are_all_of(latest, look.files):
        return dg.SkipReason(
            f"{MOST_RUNS} runs for the same files left {', '.join(look.pending)} stale; the last is "
            f"{latest[0].run_id[:8]}. Change the files or run press run {experiment}, which tells why"
        )
    return dg.RunRequest(
        run_key=f"{look.state}/{len(tried)}",
        asset_selection=[asset_key(experiment, name) for name in look.pending],
        tags={STATE_TAG: look.state, FILES_TAG: look.files},
    )


def _are_all_of(runs: Sequence[dg.DagsterRun], files: str) -> bool:
    return len(runs) == MOST_RUNS and all(run.tags.get(FILES_TAG) == files for run in runs)


def _what_to_do(instance: dg.DagsterInstance, run: dg.DagsterRun, experiment: str) -> str:
    """Why the state that `run` was for is not tried again."""
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    told = next((said for entry in failures if entry.dagster_event and (said := _said(entry.dagster_event))), "")
    return (
        f"run {run.run_id[:8]} ended as {run.status.value} and nothing changed since"
        f"{': ' + told if told else ''}. Change the files, materialize in the UI or run press run {experiment}"
    )


def _said(event: dg.DagsterEvent) -> str:
    """What a failed step said, without where in the code it said so."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    return failure.error.message.strip() if failure.error else ""
