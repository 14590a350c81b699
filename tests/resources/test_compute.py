"""One body of tests over both computes: a child process, and a job of Azure Machine Learning with an empty store."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version

import dagster as dg
import pytest

from assets.dataset import Dataset
from assets.experiment import Experiment
from assets.stage import Attempt
from resources.accelerators import Accelerators
from resources.compute import LocalCompute, Request
from resources.errors import ConfigurationError, PressError, StageError
from resources.gpu import VISIBLE, NvidiaGpus
from resources.progress import RecordedProgress
from resources.store.digests import FileDigests
from resources.store.store import Store
from tests.azure.faults import Fault
from tests.project import tiny_rows
from tests.resources.test_gpu import CPU, CUDA, H200, SECOND, TWO

KEY = "ab" * 32
INPUT = r"^GET https://.*blob.*/shared/manifests/"  # what a job asks for first


@pytest.fixture
def jobs(workspace, tmp_path):
    """Jobs of a workspace that has a cluster and an environment; the shared store lies in its container."""
    from resources.azure.job_compute import AzureMLCompute, JobPlace
    from resources.azure.shared_store import open_shared_store
    from resources.azure.workspace import AzureWorkspace, find_workspace

    workspace.compute.clusters.add("cpu-cluster")
    workspace.add_environment("olive-press", "1")
    account, _, container = workspace.container_url.rpartition("/")
    remote = {"account_url": account, "container": container, "prefix": "shared"}

    def make(minutes=5.0, cluster="cpu-cluster", environment="olive-press:1"):
        store = Store(tmp_path / "home")
        shared = open_shared_store(*remote.values(), store)
        name = find_workspace({}, tmp_path)
        where = JobPlace(cluster, environment, minutes)
        return AzureMLCompute(AzureWorkspace(name), where, shared, remote, store.digests, poll_seconds=0.2)

    yield make
    workspace.compute.stop()


@pytest.fixture(params=["local", "azureml"])
def compute(request):
    return LocalCompute() if request.param == "local" else request.getfixturevalue("jobs")()


@pytest.fixture
def asked(tmp_path):
    """What a worker is asked for: the cheapest stage there is, from a source of good rows."""
    return ask(tmp_path, "".join(json.dumps(row) + "\n" for row in tiny_rows()))


def ask(tmp_path, text, **changes):
    source = tmp_path / "source"
    source.mkdir()
    (source / "source.jsonl").write_text(text)
    experiment = {
        "name": "tiny",
        "root": str(tmp_path),
        "base_model": {"folder": "nowhere"},
        "dataset": {"path": "nowhere"},
        "registered_model": {"name": "tiny"},
    }
    tools = {"pydantic": version("pydantic")}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    asked = {"inputs": {"source_data": source}, "key_id": KEY, "tools": tools}
    return Request(experiment, "dataset", tmp_path / "artifact", scratch, **{**asked, **changes})


def run(compute, request):
    """Run as an asset does; the log lines that Dagster shows come back."""
    shutil.rmtree(request.folder, ignore_errors=True)
    request.folder.mkdir()
    failure = []

    @dg.asset
    def body(context):
        try:
            compute.run(context, request)
        except PressError as error:
            failure.append(error)
        return dg.MaterializeResult()

    lines = []

    @dg.logger
    def recording(_):
        import logging

        class Recorder(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())

        logger = logging.Logger("recorded", logging.DEBUG)
        logger.addHandler(Recorder())
        return logger

    resolved = dg.Definitions(assets=[body], loggers={"recording": recording}).resolve_implicit_global_asset_job_def()
    resolved.execute_in_process(run_config={"loggers": {"recording": {}}})
    if failure:
        raise failure[0]
    return lines


def digest_of(folder, tmp_path):
    return FileDigests(tmp_path / "digests.sqlite").folder_manifest(folder).digest


def test_what_a_worker_makes_is_the_same_everywhere(compute, asked, tmp_path):
    lines = run(compute, asked)
    here = tmp_path / "here"
    here.mkdir()
    experiment = Experiment.model_validate(asked.experiment, strict=False)
    Dataset(experiment).produce(Attempt(here, tmp_path, asked.inputs, RecordedProgress()))
    assert digest_of(asked.folder, tmp_path) == digest_of(here, tmp_path)
    assert any(line.startswith("train ") or "train" in line for line in lines if "seen" not in line)


def test_what_the_user_can_mend_is_told_the_same_everywhere(compute, tmp_path):
    row = json.dumps({"prompt": "Where?", "response": "Paris,e City of Love"}) + "\n"
    request = ask(tmp_path, row * 3)
    with pytest.raises(PressError) as caught:
        run(compute, request)
    assert str(caught.value).startswith("tiny.yaml: dataset.path nowhere: found 1 damaged row")
    assert caught.value.exit_code == ConfigurationError.exit_code


def test_a_worker_that_crashes_is_told(compute, asked):
    with pytest.raises(StageError, match=r"no_such_recipe: .* ended without an answer"):
        run(compute, replace(asked, recipe="no_such_recipe"))


def test_other_tools_than_the_key_says_make_nothing(compute, asked):
    with pytest.raises(PressError, match=r"package pydantic where it runs: found .*; accepted: 0\.1\. Build the env"):
        run(compute, replace(asked, tools={"pydantic": "0.1"}))
    assert not any(asked.folder.iterdir())


@pytest.mark.skipif(bool(NvidiaGpus().installed()), reason="the worker would find the GPU of this machine")
def test_a_worker_sees_the_one_gpu_that_it_has_alone(asked, tmp_path):
    """GPUs that are only described: their worker misses the one that it was given, by its name."""
    accelerators = Accelerators(TWO, CUDA, tmp_path / "leases")
    local = LocalCompute(accelerators=accelerators)
    with accelerators.lease(accelerators.choose("cuda"), print) as other:
        for _ in range(2):  # the first gives it back
            with pytest.raises(PressError, match="no NVIDIA GPU on this machine") as caught:
                run(local, replace(asked, device="cuda"))
            assert f"({VISIBLE}={SECOND.uuid})" in str(caught.value)
    assert other == {VISIBLE: H200.uuid}
    assert VISIBLE not in os.environ


def test_a_worker_that_has_no_use_for_a_gpu_takes_none(asked, tmp_path):
    run(LocalCompute(accelerators=Accelerators(TWO, CUDA, tmp_path / "leases")), asked)
    assert not (tmp_path / "leases").exists()


def test_a_gpu_of_no_use_is_said_once(asked, tmp_path):
    local = LocalCompute(accelerators=Accelerators(TWO, CPU, tmp_path / "leases"))
    lines = [line for _ in range(2) for line in run(local, replace(asked, device="auto"))]
    assert len([line for line in lines if "stages run on the CPU: this machine has a GPU (NVIDIA H200)" in line]) == 1


def test_a_worker_that_may_start_passes(compute):
    compute.check()


def names_of(workspace):
    """The blobs that jobs and orchestrators leave for each other."""
    storage = workspace.stand_in.storage(workspace)
    return [blob.name for blob in storage.list_blobs(name_starts_with="olive-press/jobs/")]


def test_a_job_leaves_no_message_and_no_secret_behind(jobs, asked, azure, workspace, tmp_path):
    lines = run(jobs(), asked)
    assert names_of(workspace) == []
    ((name, job),) = workspace.compute.jobs.items()
    assert name == f"press-{KEY[:40]}-1"
    assert any(f"job {name} is started on cpu-cluster" in line for line in lines)
    assert set(job.document["inputs"]) == {"code"}
    storage = azure.storage(workspace)
    blobs = {blob.name: storage.download_blob(blob.name).readall() for blob in storage.list_blobs()}
    code = {name for name in blobs if name.startswith("olive-press/code/")}
    assert any(name.endswith("/assets/worker.py") for name in code)
    assert not [name for name in code if ".pyc" in name or ".venv" in name or ".press" in name]
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    written = "\n".join(lines) + json.dumps(job.document) + job.output()
    written += b"".join([*blobs.values(), *files]).decode("latin-1")
    assert len(azure.secrets) > 3
    assert not [secret for secret in azure.secrets if secret in written]


def test_the_job_after_a_failed_one_is_another(jobs, asked, workspace):
    with pytest.raises(StageError, match=r"https://ml.azure.com/runs/press-"):
        run(jobs(), replace(asked, recipe="no_such_recipe"))
    assert names_of(workspace) == []
    run(jobs(), asked)
    assert [job.status for job in workspace.compute.jobs.values()] == ["Failed", "Completed"]


def test_a_job_that_takes_too_long_is_ended(jobs, asked, azure, workspace):
    azure.traffic.add_faults(Fault(INPUT, "delay", seconds=30, times=9))
    with pytest.raises(StageError, match=r"was cancelled: it took longer than compute\.azureml\.timeout_minutes, 0\.1"):
        run(jobs(minutes=0.1), asked)
    assert [job.status for job in workspace.compute.jobs.values()] == ["Canceled"]
    assert names_of(workspace) == []


def test_faults_that_pass_change_nothing(jobs, asked, azure, workspace):
    azure.traffic.add_faults(
        Fault(r"^PUT .*/jobs/press-", status=500),
        Fault(r"^PUT .*/jobs/press-", "lose"),
        Fault(r"^GET .*/jobs/press-", "drop", after=1),
        Fault(r"^GET .*/jobs/press-", status=429, code="TooManyRequests", headers={"Retry-After": "1"}, after=2),
        Fault(r"^PUT https://.*blob.*/olive-press/jobs/", status=503, code="ServerBusy", times=2),
        Fault(r"^PUT https://.*blob.*/olive-press/jobs/.*/\d+\.json", "lose"),
        Fault(r"^GET https://.*blob.*/outcomes/press-", "cut", bytes=3),
        Fault(r"^GET https://.*blob.*/shared/blobs/", "cut", bytes=3, times=2),
        Fault(r"^DELETE https://.*blob", "lose", times=2),
    )
    lines = run(jobs(), asked)
    assert any("train" in line and "eval" in line for line in lines)
    assert (asked.folder / "train.jsonl").is_file()
    assert len(workspace.compute.jobs) == 1
    assert names_of(workspace) == []


def test_what_a_job_made_and_could_not_be_fetched_is_taken_in_by_the_next_try(jobs, asked, azure, workspace):
    azure.traffic.add_faults(Fault(r"^(GET|HEAD) .*/outcomes/press-", status=403, code="AuthorizationFailed", times=99))
    with pytest.raises(StageError, match="403 AuthorizationFailed"):
        run(jobs(), asked)
    azure.start_again()
    run(jobs(), asked)
    assert (asked.folder / "train.jsonl").is_file()
    assert len(workspace.compute.jobs) == 1
    assert names_of(workspace) == []


def test_what_was_taken_in_is_not_taken_for_a_new_artifact(jobs, asked, workspace):
    """A forced run computes: with the scratch of what was committed the memory of its job is gone."""
    run(jobs(), asked)
    shutil.rmtree(asked.scratch)
    asked.scratch.mkdir()
    run(jobs(), asked)
    assert len(workspace.compute.jobs) == 2


def test_two_machines_that_want_the_same_start_one_job(jobs, asked, workspace, tmp_path):
    workspace.compute.start_seconds = 4
    other = tmp_path / "other"
    (other / "scratch").mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, jobs(), asked)
        while not workspace.compute.jobs:
            time.sleep(0.05)
        run(jobs(), replace(asked, folder=other / "artifact", scratch=other / "scratch"))
        first.result()
    run(jobs(), replace(asked, folder=other / "artifact", scratch=other / "scratch"))  # after the other has cleared up
    assert len(workspace.compute.jobs) == 1
    assert digest_of(asked.folder, tmp_path) == digest_of(other / "artifact", tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cluster": "nowhere"}, r"compute\.azureml\.cluster: found no cluster nowhere"),
        ({"environment": "olive-press:2"}, r"compute\.azureml\.environment: found no environment olive-press:2"),
        ({"environment": "nowhere@latest"}, r"compute\.azureml\.environment: found no environment nowhere@latest"),
    ],
)
def test_what_jobs_need_and_is_not_there_is_told_before(jobs, changes, told):
    with pytest.raises(ConfigurationError, match=told):
        jobs(**changes).check()


def test_missing_rights_are_told_before(jobs, azure):
    azure.traffic.add_faults(Fault("^GET .*/computes/", status=403, code="AuthorizationFailed", times=9))
    with pytest.raises(ConfigurationError, match=r"no rights on the cluster cpu-cluster \(403 AuthorizationFailed\)"):
        jobs().check()


def test_an_environment_may_be_named_by_its_label(jobs):
    jobs(environment="olive-press@latest").check()
