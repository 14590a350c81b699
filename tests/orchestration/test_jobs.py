"""Stages as jobs of Azure Machine Learning: what comes out, and what becomes of the job when the orchestrator ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest

from tests.azure.faults import Fault
from tests.project import Project

INPUT = r"^GET https://.*blob.*/manifests/"  # what a job asks for first
JOBS = {"cluster": "gpu-cluster", "environment": "olive-press:1", "timeout_minutes": 5}


@pytest.fixture
def remote_training(project, workspace) -> Project:
    """A finished project whose adapter is stale, and trained as a job."""
    workspace.compute.clusters.add("gpu-cluster")
    workspace.add_environment("olive-press", "1")
    account_url, _, container = workspace.container_url.rpartition("/")
    project.edit("store", remote={"account_url": account_url, "container": container, "prefix": "team"})
    project.edit("compute", stages={"lora_adapter": {"azureml": JOBS}})
    project.edit("lora_adapter", r=2, steps=2)
    yield project
    workspace.compute.stop()


def train(project, *arguments):
    done = project.press("run", "tiny", "--select", "lora_adapter", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return next(one for one in json.loads(done.stdout)["stages"] if one["stage"] == "lora_adapter")


def await_job(workspace):
    while not workspace.compute.jobs:
        time.sleep(0.05)
    (name,) = workspace.compute.jobs
    return name


def messages(workspace):
    storage = workspace.stand_in.storage(workspace)
    return [blob.name for blob in storage.list_blobs(name_starts_with="olive-press/jobs/")]


def test_a_stage_that_ran_as_a_job_is_what_it_is_when_it_runs_here(remote_training, workspace, tmp_path):
    here = Project(shutil.copytree(remote_training.root, tmp_path / "here", symlinks=True))
    here.edit("compute", stages={})
    trained = train(remote_training)
    assert trained["outcome"] == "computed"
    assert [job.status for job in workspace.compute.jobs.values()] == ["Completed"]
    assert train(here)["data_version"] == trained["data_version"]
    assert len(workspace.compute.jobs) == 1
    assert remote_training.plan()["lora_adapter"]["status"] == "fresh"
    assert messages(workspace) == []


def test_a_job_whose_orchestrator_was_killed_is_found_again(remote_training, workspace):
    workspace.compute.start_seconds = 3
    press = remote_training.start("run", "tiny", "--select", "lora_adapter")
    name = await_job(workspace)
    os.killpg(press.pid, signal.SIGKILL)
    press.wait()
    assert not workspace.compute.jobs[name].is_over
    assert train(remote_training)["outcome"] == "computed"
    assert list(workspace.compute.jobs) == [name]
    assert messages(workspace) == []


def test_a_cancelled_run_cancels_its_job(remote_training, azure, workspace):
    azure.traffic.add_faults(Fault(INPUT, "delay", seconds=60, times=9))
    workspace.compute.start_seconds = 1
    press = remote_training.start("run", "tiny", "--select", "lora_adapter")
    name = await_job(workspace)
    workspace.compute.await_status(name, "Running")
    time.sleep(1)
    os.kill(press.pid, signal.SIGINT)
    press.communicate(timeout=60)
    assert workspace.compute.jobs[name].status == "Canceled"
    assert workspace.compute.jobs[name].process.poll() is not None
    assert messages(workspace) == []


@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ({**JOBS, "cluster": "nowhere"}, "compute.stages.lora_adapter.azureml.cluster: found no cluster nowhere"),
        ({**JOBS, "environment": "nowhere:1"}, "azureml.environment: found no environment nowhere:1"),
    ],
)
def test_what_a_job_needs_and_is_not_there_ends_the_run_before_it_begins(remote_training, workspace, jobs, told):
    remote_training.edit("compute", stages={"lora_adapter": {"azureml": jobs}})
    remote_training.edit("dataset", eval_fraction=0.3)
    done = remote_training.press("run", "tiny", "--json")
    assert done.returncode == 2
    assert told in done.stderr
    assert workspace.compute.jobs == {}
    assert remote_training.plan()["dataset"]["status"] == "run"


def test_without_the_shared_store_no_job_is_started(remote_training, workspace):
    done = remote_training.press("run", "tiny", "--no-remote")
    assert done.returncode == 2
    assert "compute.stages.lora_adapter.azureml: found --no-remote" in done.stderr
    assert workspace.compute.jobs == {}
