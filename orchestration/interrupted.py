"""Runs whose process is gone: Dagster is told that they failed, so that nothing waits for them."""

from __future__ import annotations

import os
import socket

import dagster as dg
import psutil

PROCESS_TAG = "press/process"


def process_tags() -> dict[str, str]:
    """The tag by which a later run finds out whether this process still lives."""
    return {PROCESS_TAG: _identity(os.getpid(), psutil.Process().create_time())}


def close_interrupted_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the unfinished runs of dead processes of this host as failed; returns their ids."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    closed: list[str] = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=unfinished)):
        run = record.dagster_run
        process = run.tags.get(PROCESS_TAG)
        if process is None or not process.startswith(socket.gethostname() + ":") or _lives(process):
            continue
        instance.report_run_failed(run, "its process was ended before it finished")
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
