"""Ctrl-C and kill -9 in the middle of a stage: one message, nothing complete lost, the next run goes on."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from orchestration.history import open_instance
from tests.project import Project


def _wait_for_worker(project: Project, pid: int) -> psutil.Process:
    """The child process that trains the adapter."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children():
            if "assets.worker" in " ".join(child.cmdline()):
                return child
        time.sleep(0.1)
    raise AssertionError("no worker was started")


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


def test_killed_worker_is_one_clear_error(project, training):
    run, worker = training
    worker.send_signal(signal.SIGKILL)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "lora_adapter" in stderr and "-9" in stderr and "memory" in stderr
