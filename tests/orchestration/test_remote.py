"""A shared store between machines: what one pressed the others restore, and what is wrong there stops nobody."""

from __future__ import annotations

import json
import shutil

import pytest

from assets.experiment import read_experiment
from assets.recipes import STAGE_NAMES
from orchestration.experiment_assets import build_definitions
from orchestration.history import open_instance
from orchestration.recorded import SqliteRecords
from resources.store.store import Store
from tests.azure.faults import Fault
from tests.project import Project

PREFIX = "team/press"
RESTORED = dict.fromkeys(STAGE_NAMES, "restored")
NOT_SELECTED = dict.fromkeys(STAGE_NAMES[1:], "not_selected")


def share(project: Project, workspace, **values) -> None:
    account_url, _, container = workspace.container_url.rpartition("/")
    remote = {"account_url": account_url, "container": container, "prefix": PREFIX, **values}
    project.edit("store", remote=remote)


@pytest.fixture
def shared(project, azure, workspace, monkeypatch) -> Project:
    """A finished project with a shared store, which a SAS opens and in which nothing is yet."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))
    share(project, workspace)
    return project


@pytest.fixture
def pushed(shared) -> Project:
    """The same with everything in the shared store."""
    assert {one["outcome"] for one in push(shared).values()} == {"sent"}
    return shared


@pytest.fixture
def empty_machine(pushed) -> Project:
    """Another machine: the same files, an empty PRESS_HOME, everything in the shared store."""
    return forget_all(pushed)


def forget_all(project: Project) -> Project:
    shutil.rmtree(project.home)
    return project


def push(project: Project, *arguments: str) -> dict:
    """`press store push tiny --json`: stage or part → what became of it."""
    return answer(project, "push", *arguments)


def answer(project: Project, verb: str, *arguments: str, returncode: int = 0) -> dict:
    done = project.press("store", verb, "tiny", "--json", *arguments)
    assert done.returncode == returncode, done.stderr
    document = json.loads(done.stdout)
    assert document["moved"] == sum(one["moved"] for one in document["artifacts"])
    return {one["recipe"]: one for one in document["artifacts"]}


def recorded(project: Project) -> dict[str, str]:
    """Stage → the data version that it was last materialized with."""
    return {
        name: one.data_version for name, one in SqliteRecords(project.home).histories(["tiny"])["tiny"].stages.items()
    }


def dataset_blob(project: Project) -> tuple[str, int]:
    """Where a file of the dataset lies in the container, and its size."""
    record = Store(project.home).manifest(recorded(project)["dataset"]).files[0]
    return f"{PREFIX}/blobs/{record.sha256[:2]}/{record.sha256}", record.size


def test_an_empty_machine_restores_all_six_and_computes_nothing(azure, pushed):
    before = recorded(pushed)
    machine = forget_all(pushed)
    azure.traffic.forget()
    assert {one["status"] for one in machine.plan().values()} == {"run", "maybe"}
    assert azure.traffic.requests() == []  # planning stays offline
    done = machine.press("run", "tiny", "--json")
    outcomes = {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}
    assert {name: stage["outcome"] for name, stage in outcomes.items()} == RESTORED
    assert outcomes["lora_adapter"]["saved_seconds"] > 0  # as it took where it was computed
    assert recorded(machine) == before
    assert azure.traffic.requests("^PUT") == []
    azure.traffic.forget()
    assert machine.run() == dict.fromkeys(STAGE_NAMES, "fresh")
    assert azure.traffic.requests() == []
    assert json.loads(machine.press("store", "verify", "--json").stdout)["damaged"] == []
    assert secrets_in(machine, azure, done.stdout + done.stderr) == []


def secrets_in(project: Project, azure, told: str) -> list[str]:
    """Where a secret stands in what was told and in every file of the project."""
    written = {str(path): path.read_bytes() for path in project.root.rglob("*") if path.is_file()}
    assert any("dagster" in path and path.endswith(".db") for path in written)
    written["told"] = told.encode()
    return [path for path, data in written.items() if any(secret.encode() in data for secret in azure.secrets)]


def test_a_run_of_the_ui_restores_and_says_where_from(empty_machine, workspace, monkeypatch):
    monkeypatch.setenv("PRESS_HOME", str(empty_machine.home))
    experiment = read_experiment(empty_machine.root / "experiments" / "tiny.yaml")
    job = build_definitions([experiment]).resolve_implicit_global_asset_job_def()
    with open_instance(empty_machine.home) as instance:
        result = job.execute_in_process(instance=instance)
        shown = {
            event.asset_key.path[-1]: {name: value.value for name, value in event.materialization.metadata.items()}
            for event in result.get_asset_materialization_events()
        }
    for name in STAGE_NAMES:
        assert shown[name]["outcome"] == "restored"
        assert shown[name]["restored from"] == f"{workspace.container_url}/{PREFIX}/"
    assert all(shown[name]["bytes fetched"] > 0 for name in STAGE_NAMES)
    assert all(shown[name]["bytes fetched"] <= shown[name]["bytes saved"] for name in STAGE_NAMES)


def test_what_is_computed_is_pushed_when_asked_and_then_served(azure, shared, workspace):
    forget_all(shared)
    assert shared.run("--select", "dataset") == {"dataset": "computed"} | NOT_SELECTED
    assert azure.traffic.requests("^PUT") == []
    assert shared.run("--select", "dataset", "--force", "dataset", "--push")["dataset"] == "computed"
    assert forget_all(shared).run("--select", "dataset")["dataset"] == "restored"

    share(shared, workspace, push=True)
    shared.edit("dataset", seed=7)
    assert shared.run("--select", "dataset")["dataset"] == "computed"
    assert forget_all(shared).run("--select", "dataset")["dataset"] == "restored"


def test_no_remote_neither_looks_nor_pushes(azure, empty_machine, workspace):
    share(empty_machine, workspace, push=True)
    azure.traffic.forget()
    assert empty_machine.run("--select", "dataset", "--no-remote")["dataset"] == "computed"
    assert azure.traffic.requests() == []


@pytest.mark.parametrize("arguments", [["--push"], ["--push", "--no-remote"]])
def test_pushing_to_nowhere_is_a_request_error(project, arguments):
    done = project.press("run", "tiny", *arguments)
    assert done.returncode == 2
    assert ("store.remote" if len(arguments) == 1 else "--no-remote") in done.stderr


def test_a_push_that_was_refused_is_told_and_made_up_by_the_next_run(azure, shared):
    forget_all(shared)
    azure.traffic.add_faults(Fault(r"^PUT .*/keys/", status=403, code="AuthorizationPermissionMismatch", times=9))
    done = shared.press("run", "tiny", "--select", "dataset", "--push")
    assert done.returncode == 1 and "403 AuthorizationPermissionMismatch" in done.stderr
    azure.traffic.forget()
    assert shared.run("--select", "dataset", "--push")["dataset"] == "restored"
    assert len(azure.traffic.requests(r"^PUT .*/keys/")) == 1
    assert forget_all(shared).run("--select", "dataset")["dataset"] == "restored"


def test_a_damaged_shared_store_is_told_and_stops_nobody(azure, pushed, workspace):
    blob, size = dataset_blob(pushed)
    storage = azure.storage(workspace)
    metadata = storage.get_blob_client(blob).get_blob_properties().metadata
    storage.upload_blob(blob, b"x" * size, overwrite=True, metadata=metadata)
    share(pushed, workspace, push=True)
    forget_all(pushed)
    done = pushed.press("run", "tiny", "--select", "dataset", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["stages"][0]["outcome"] == "computed"
    warnings = [line for line in done.stderr.splitlines() if line.startswith("press: warning:")]
    assert len(warnings) == 2 and all(blob in line for line in warnings)  # when it looked, and when it pushed
    assert "computed instead" in warnings[0]

    told = pushed.press("store", "push", "tiny", "--verify")
    assert told.returncode == 1 and blob in told.stderr and "Delete that blob" in told.stderr
    storage.delete_blob(blob)
    assert push(pushed)["dataset"]["moved"] == size
    assert forget_all(pushed).run("--select", "dataset")["dataset"] == "restored"


def test_a_shared_store_out_of_reach_is_told_before_anything_runs(azure, empty_machine):
    azure.traffic.add_faults(Fault(r".", status=403, code="AuthorizationPermissionMismatch", times=99))
    done = empty_machine.press("run", "tiny", "--select", "dataset")
    assert done.returncode == 2 and "403" in done.stderr and "--no-remote" in done.stderr
    assert not (empty_machine.home / "store" / "keys").exists()
    assert empty_machine.run("--select", "dataset", "--no-remote")["dataset"] == "computed"


def test_one_that_is_lost_on_the_way_ends_the_run_and_the_next_goes_on(azure, empty_machine):
    azure.traffic.add_faults(Fault(r"^GET .*/blobs/", status=403, code="AuthorizationPermissionMismatch", times=99))
    done = empty_machine.press("run", "tiny", "--select", "dataset")
    assert done.returncode == 1 and "403" in done.stderr and "--no-remote" in done.stderr
    assert secrets_in(empty_machine, azure, done.stdout + done.stderr) == []
    azure.traffic.forget()
    assert empty_machine.run("--select", "dataset")["dataset"] == "restored"


def test_a_part_is_restored_where_its_stage_must_be_computed(pushed):
    graphs = [entry for entry in Store(pushed.home).entries() if entry.ingredients["recipe"] == "onnx_graph"]
    machine = forget_all(pushed)
    machine.edit("onnx_model", adapter="other")
    outcomes = machine.run("--select", "onnx_model")
    assert [outcomes[name] for name in STAGE_NAMES[1:4]] == ["restored", "restored", "computed"]
    assert [entry for entry in Store(machine.home).entries() if entry.ingredients["recipe"] == "onnx_graph"] == graphs


def test_push_sends_once_and_pull_brings_stage_by_stage(azure, pushed):
    sizes = {name: one["bytes"] for name, one in push(pushed).items()}
    again = push(pushed)
    assert {(one["outcome"], one["moved"]) for one in again.values()} == {("there", 0)}
    assert {"onnx_graph", "onnx_graph_exact", *STAGE_NAMES} == again.keys()
    versions = recorded(pushed)
    machine = forget_all(pushed)
    pulled = answer(machine, "pull")
    assert {name: one["digest"] for name, one in pulled.items()} == versions
    assert {one["outcome"] for one in pulled.values()} == {"restored"}
    assert {name: one["bytes"] for name, one in pulled.items()} == {name: sizes[name] for name in versions}
    assert {(one["outcome"], one["moved"]) for one in answer(machine, "pull").values()} == {("here", 0)}
    azure.traffic.forget()
    assert machine.run() == RESTORED
    assert azure.traffic.requests() == []


def test_pull_says_what_the_shared_store_lacks(azure, empty_machine, workspace):
    storage = azure.storage(workspace)
    for blob in list(storage.list_blobs(f"{PREFIX}/keys/")):
        if json.loads(storage.download_blob(blob.name).readall())["ingredients"]["recipe"] == "lora_adapter":
            storage.delete_blob(blob.name)
    pulled = answer(empty_machine, "pull", returncode=1)
    missing = {name for name, one in pulled.items() if one["outcome"] == "missing"}
    assert missing == {"lora_adapter", "onnx_model", "eval_report", "registered_model"}


def test_all_experiments_with_a_shared_store_are_pushed(shared, workspace):
    experiments = shared.root / "experiments"
    shutil.copy(experiments / "tiny.yaml", experiments / "twin.yaml")
    (experiments / "alone.yaml").write_text((experiments / "tiny.yaml").read_text().partition("store:")[0])
    done = shared.press("store", "push", "--all", "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["experiments"]
    assert (first["experiment"], second["experiment"]) == ("tiny", "twin")
    assert first["moved"] > 0 and second["moved"] == 0  # the same keys


def test_an_experiment_without_shared_store_says_so(project):
    for arguments in (["push", "tiny"], ["pull", "tiny"], ["push", "--all"]):
        done = project.press("store", *arguments)
        assert done.returncode == 2 and "store.remote" in done.stderr
