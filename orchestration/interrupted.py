"""Runs whose process is gone: Dagster is told that they failed, so that nothing waits for them."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg

from orchestration import run_processes
from orchestration.history import open_instance
from orchestration.run_processes import PROCESS_TAG, is_gone, process_tags

INTERRUPTED_TAG = "press/interrupted"
UNFINISHED = [dg.DagsterRunStatus(status) for status in run_processes.UNFINISHED]
# A run names its process in its first step. One that never got there has loaded definitions for so long, or is gone.
LONGEST_START = 600  # seconds


def name_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag `run`, which this process executes, unless it was tagged when it was created."""
    if PROCESS_TAG not in run.tags:
        instance.add_run_tags(run.run_id, process_tags())


def close_interrupted_runs_under(home: Path) -> list[str]:
    """Mark the unfinished runs of dead processes of this host as failed in the instance under `home`."""
    with open_instance(home) as instance:
        return close_interrupted_runs(instance)


def close_interrupted_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the unfinished runs of dead processes of this host as failed; returns their ids."""
    closed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        process = run.tags.get(PROCESS_TAG)
        is_late = time.time() - record.update_timestamp.timestamp() > LONGEST_START
        if is_late if process is None else is_gone(process):
            instance.report_run_failed(run, "its process was ended before it finished")
            instance.add_run_tags(run.run_id, {INTERRUPTED_TAG: "true"})
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)  # or the next run waits for ever
            closed.append(run.run_id)
    return closed
