"""Runs whose process is gone: Dagster is told that they failed, so that nothing waits for them."""

from __future__ import annotations

import os
import socket
import time

import dagster as dg
import psutil

PROCESS_TAG = "press/process"
INTERRUPTED_TAG = "press/interrupted"
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# A run names its process in its first step. One that never got there has loaded definitions for so long, or is gone.
LONGEST_START = 600  # seconds


def process_tags() -> dict[str, str]:
    """The tag by which a later run finds out whether this process still lives."""
    return {PROCESS_TAG: _identity(os.getpid(), psutil.Process().create_time())}


def name_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag `run`, which this process executes, unless it was tagged when it was created."""
    if PROCESS_TAG not in run.tags:
        instance.add_run_tags(run.run_id, process_tags())


def close_interrupted_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the unfinished runs of dead processes of this host as failed; returns their ids."""
    closed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        process = run.tags.get(PROCESS_TAG)
        if process is None:
            if time.time() - record.update_timestamp.timestamp() < LONGEST_START:
                continue
        elif not process.startswith(socket.gethostname() + ":") or _lives(process):
            continue
        instance.report_run_failed(run, "its process was ended before it finished")
        instance.add_run_tags(run.run_id, {INTERRUPTED_TAG: "true"})
        closed.append(run.run_id)
    return closed


def _identity(pid: int, created: float) -> str:
    return f"{socket.gethostname()}:{pid}:{created:.2f}"


def _lives(process: str) -> bool:
    pid = int(process.split(":")[1])
    try:
        return _identity(pid, psutil.Process(pid).create_time()) == process
    except psutil.NoSuchProcess:
        return False
