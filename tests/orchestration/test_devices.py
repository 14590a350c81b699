"""What stages compute on: asked before anything runs, shown afterwards, and held back by the pool `gpu`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import dagster as dg
import pytest
import yaml

from assets.experiment import open_experiment
from orchestration.before_run import check_stages
from orchestration.experiment_assets import build_definitions
from orchestration.gpu_pool import POOL, size_pool, tell_full
from orchestration.history import asset_key, open_instance
from orchestration.interrupted import close_interrupted_runs
from orchestration.run_processes import PROCESS_TAG, process_tags
from resources.accelerators import Accelerators
from resources.errors import ConfigurationError
from resources.gpu import DescribedGpus, choose_device
from resources.store.store import Store
from tests.orchestration.dagster_services import webserver
from tests.resources.test_gpu import CPU, CUDA, TWO

without_gpu = pytest.mark.skipif(choose_device("auto").name == "cuda", reason="this machine has a GPU")


@without_gpu
def test_cuda_without_a_gpu_is_told_before_anything_runs_and_hinders_no_plan(project):
    project.edit("compute", device="cuda")
    assert set(project.run().values()) == {"fresh"}  # where stages ran is in no key, and nothing is to be computed
    project.edit("dataset", seed=3)
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 2
    assert "tiny.yaml: compute.device: found cuda, and " in done.stderr and "accepted: auto, cpu" in done.stderr
    assert project.plan()["dataset"]["status"] == "run"  # nothing ran
    assert project.run("--select", "dataset")["dataset"] == "computed"


@without_gpu
def test_cuda_without_a_gpu_ends_a_run_of_the_ui_at_its_first_stage(project, tmp_path):
    project.edit("compute", device="cuda")
    project.edit("dataset", seed=3)
    with webserver(project, tmp_path) as server:
        run = server.launch("dataset", "lora_adapter")
        assert server.end(run) == "FAILURE"
        assert "tiny.yaml: compute.device: found cuda, and " in server.failures(run)[0]
        assert server.outcomes(run) == {}


def test_a_gpu_that_pytorch_cannot_use_is_one_warning(project):
    project.edit("compute", device="auto")
    experiment = open_experiment("tiny", project.root / "experiments")
    unused = Accelerators(TWO, CPU)
    assert "this machine has a GPU (NVIDIA H200)" in check_stages(experiment, ["awq_model", "lora_adapter"], unused)
    assert check_stages(experiment, ["awq_model"], Accelerators(TWO, CUDA)) == ""
    assert check_stages(experiment, ["awq_model"], Accelerators(DescribedGpus(), CUDA)) == ""
    assert check_stages(experiment, ["dataset", "registered_model"], unused) == ""


def test_cuda_is_asked_for_by_the_stages_that_use_it_where_they_run_here(project):
    experiment = with_compute(project, {"device": "cuda"})
    nothing = Accelerators(DescribedGpus(), CUDA)
    with pytest.raises(ConfigurationError, match=r"tiny\.yaml: compute\.device: found cuda, and no NVIDIA GPU"):
        check_stages(experiment, ["lora_adapter"], nothing)
    check_stages(experiment, ["dataset"], nothing)
    check_stages(with_compute(project, {"device": "cuda", "azureml": JOBS}), ["lora_adapter"], nothing)


def test_what_a_stage_ran_on_is_kept_and_shown(finished_project):
    device = "cpu"
    entries = {entry.ingredients["recipe"]: entry for entry in Store(finished_project.home).entries()}
    for stage in ("awq_model", "lora_adapter", "onnx_model"):
        told = entries[stage].provenance["ran_on"]
        assert told["device"] == device and told["cpu"] and told["peak_memory"] > 10_000_000
    assert 1 <= entries["lora_adapter"].provenance["ran_on"]["threads"] <= (os.cpu_count() or 1)
    with open_instance(finished_project.home) as instance:
        event = instance.get_latest_materialization_event(asset_key("tiny", "lora_adapter"))
    assert event is not None and event.asset_materialization is not None
    shown = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert (shown["device"], shown["processor"]) == (device, entries["lora_adapter"].provenance["ran_on"]["cpu"])
    assert shown["peak memory bytes"] == entries["lora_adapter"].provenance["ran_on"]["peak_memory"]


def test_what_a_stage_ran_on_is_in_no_key_and_shown_of_a_restored_artifact(project):
    shutil.rmtree(project.home / "dagster")
    assert set(project.run().values()) == {"restored"}
    with open_instance(project.home) as instance:
        event = instance.get_latest_materialization_event(asset_key("tiny", "awq_model"))
    assert event is not None and event.asset_materialization is not None
    assert event.asset_materialization.metadata["device"].value == "cpu"


JOBS = {"cluster": "gpu-cluster", "environment": "olive-press:1"}


def with_compute(project, compute):
    file = project.root / "experiments" / "tiny.yaml"
    document = yaml.safe_load(file.read_text()) | {"compute": compute}
    if "stages" in compute or "azureml" in compute:
        account = {"account_url": "https://example.blob.core.windows.net", "container": "shared"}
        document["store"] = {"remote": account}
    file.write_text(yaml.safe_dump(document))
    return open_experiment("tiny", project.root / "experiments")


@pytest.mark.parametrize(
    ("compute", "held"),
    [
        ({"device": "auto"}, {"awq_model", "lora_adapter", "eval_report"}),
        ({"device": "cuda"}, {"awq_model", "lora_adapter", "eval_report"}),
        ({"device": "cpu"}, set()),
        ({"stages": {"lora_adapter": {"azureml": JOBS}}}, {"awq_model", "eval_report"}),
    ],
)
def test_stages_that_may_compute_on_a_gpu_of_this_machine_hold_the_pool(project, compute, held):
    definitions = build_definitions([with_compute(project, compute)])
    pools = {one.key.path[-1]: one.op.pool for one in definitions.assets or [] if isinstance(one, dg.AssetsDefinition)}
    assert {stage for stage, pool in pools.items() if pool == POOL} == held
    assert set(pools.values()) <= {POOL, None}


def test_the_pool_has_a_slot_for_each_gpu_and_no_limit_without(tmp_path):
    with open_instance(tmp_path) as instance:
        storage = instance.event_log_storage
        for slots in (2, 1, 2):
            size_pool(instance, slots)
            assert storage.get_concurrency_info(POOL).slot_count == slots
        size_pool(instance, 0)
        assert POOL not in storage.get_concurrency_keys()


def test_a_stage_runs_in_a_pool_without_limit(tmp_path):
    """A machine that had a GPU and has none now: nothing waits for a slot."""

    @dg.asset(pool=POOL)
    def awq_model() -> None: ...

    with open_instance(tmp_path) as instance:
        size_pool(instance, 1)
        size_pool(instance, 0)
        assert dg.materialize([awq_model], instance=instance).success


def test_a_killed_run_gives_its_slot_back(tmp_path):
    told: list[str] = []
    with open_instance(tmp_path) as instance:
        size_pool(instance, 1)
        tell_full(instance, told.append)
        assert told == []
        run = dg.DagsterRun(job_name="tiny", status=dg.DagsterRunStatus.STARTED, tags=gone())
        instance.add_run(run)
        storage = instance.event_log_storage
        assert storage.claim_concurrency_slot(POOL, run.run_id, "tiny__awq_model").is_claimed
        tell_full(instance, told.append)
        assert told == ["other stages hold all 1 slots of the pool gpu; a stage that needs one waits"]
        assert close_interrupted_runs(instance) == [run.run_id]
        assert storage.get_concurrency_info(POOL).active_slot_count == 0


def gone():
    """The tag of a process of this host that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = process_tags()[PROCESS_TAG].rsplit(":", 2)[0]
    return {PROCESS_TAG: f"{host}:{ended.pid}:1.00"}


def test_a_stage_that_cannot_fit_says_what_would(project):
    project.edit("lora_adapter", batch_size=10**8)
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 1
    assert (
        "lora_adapter: it needs about" in done.stderr and "GB are missing. Set lora_adapter.batch_size: " in done.stderr
    )
