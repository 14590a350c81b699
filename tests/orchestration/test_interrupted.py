"""Ctrl-C, kill -9 and Terminate in the middle of a stage: nothing complete is lost and the next run goes on."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing

import dagster as dg
import psutil
import pytest

from orchestration.history import open_instance
from orchestration.interrupted import INTERRUPTED_TAG, close_interrupted_runs
from tests.orchestration.dagster_services import webserver_and_daemon
from tests.project import Project


def _wait_for_worker(project: Project, pid: int) -> psutil.Process:
    """The process below `pid` that trains the adapter."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            if child.cmdline()[-1] == "assets.worker" or "worker_server" in " ".join(_parent(child).cmdline()):
                return child
        time.sleep(0.1)
    raise AssertionError("no worker was started")


def _parent(process: psutil.Process) -> psutil.Process:
    parent = process.parent()
    assert parent is not None
    return parent


def _gone(process: psutil.Process) -> bool:
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.fixture
def training(project):
    """A run that is busy with a changed lora_adapter, and its worker."""
    project.edit("lora_adapter", steps=2000)
    run = project.start("run", "tiny")
    worker = _wait_for_worker(project, run.pid)
    yield run, worker
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)


def test_ctrl_c_ends_with_one_message(project, training):
    run, worker = training
    time.sleep(3)
    os.killpg(run.pid, signal.SIGINT)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 1
    assert stderr.count("press: ") == 1 and "interrupted" in stderr and "Traceback" not in stderr
    assert _gone(worker)
    project.edit("lora_adapter", steps=4)
    assert set(project.run().values()) <= {"fresh", "restored"}


def test_kill_9_loses_nothing_and_ends_the_worker(project, training):
    run, worker = training
    time.sleep(1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert _gone(worker)
    project.edit("lora_adapter", steps=4)
    assert set(project.run().values()) <= {"fresh", "restored"}
    with open_instance(project.home) as instance:
        assert not [r for r in instance.get_run_records() if not r.dagster_run.is_finished]


def test_a_run_that_never_named_its_process_is_given_time_to_start(tmp_path):
    with open_instance(tmp_path) as instance:
        runs = [dg.DagsterRun(job_name="tiny", status=dg.DagsterRunStatus.STARTING) for _ in range(2)]
        for run in runs:
            instance.add_run(run)
        with closing(sqlite3.connect(tmp_path / "dagster" / "history" / "runs.db")) as connection, connection:
            connection.execute(
                "UPDATE runs SET update_timestamp = datetime('now', '-1 hour') WHERE run_id = ?", [runs[0].run_id]
            )
        assert close_interrupted_runs(instance) == [runs[0].run_id]


def test_killed_worker_is_one_clear_error(project, training):
    run, worker = training
    worker.send_signal(signal.SIGKILL)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "lora_adapter" in stderr and "-9" in stderr and "memory" in stderr


def test_sensor_goes_on_after_everything_was_killed_but_not_after_a_run_was_terminated(project, tmp_path):
    sensor = "keep_tiny_up_to_date"
    with webserver_and_daemon(project, tmp_path) as server:
        server.start_sensor(sensor)
        project.edit("lora_adapter", steps=2000)
        worker = _wait_for_worker(project, server.process.pid)
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        assert _gone(worker)
    with webserver_and_daemon(project, tmp_path) as server:
        again = _wait_for_worker(project, server.process.pid)
        second, first = server.sensor_runs(sensor)
        assert (first["status"], second["status"]) == ("FAILURE", "STARTED")
        assert INTERRUPTED_TAG in first["tags"] and INTERRUPTED_TAG not in second["tags"]
        assert server.terminate(second["runId"]) == "CANCELED"
        assert _gone(again)
        reason = f"run {second['runId'][:8]} ended as CANCELED"
        server.wait(lambda: reason in (server.ticks(sensor)[0]["skipReason"] or ""), "the sensor went on")
        assert len(server.sensor_runs(sensor)) == 2
    project.edit("lora_adapter", steps=4)
    assert set(project.run().values()) <= {"fresh", "restored"}
