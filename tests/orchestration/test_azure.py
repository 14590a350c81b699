"""A finished experiment whose model goes to an Azure ML workspace: registered, seen, planned offline, held by gc."""

from __future__ import annotations

import json
import shutil

import pytest

from assets.recipes import STAGE_NAMES
from tests.azure.faults import Fault


@pytest.fixture
def registering(project, workspace):
    """A finished project that is to register in the workspace from now on."""
    project.edit("registered_model", registry="azureml")
    project.edit("azure", workspace=workspace.name)
    return project


def test_a_model_is_registered_and_planning_needs_no_network_after(azure, workspace, registering):
    assert registering.plan()["registered_model"]["reasons"] == [
        {"ingredient": "spec.registry", "was": "local", "now": "azureml"}
    ]
    outcomes = registering.run()
    assert outcomes["registered_model"] == "computed"
    assert {outcome for stage, outcome in outcomes.items() if stage != "registered_model"} == {"fresh"}
    [version] = workspace.versions("models", "tiny-model")
    tags = version["properties"]["tags"]
    assert tags["experiment"] == "tiny"
    assert {"onnx_model", "eval_report", "max_kl_nats"} <= tags.keys()
    assert version["properties"]["modelUri"].endswith(f"/paths/olive-press/trees/{tags['onnx_model']}/")
    azure.traffic.forget()
    assert {one["status"] for one in registering.plan().values()} == {"fresh"}
    assert azure.traffic.requests() == []
    shutil.rmtree(registering.home / "registry" / "tiny-model")  # what is registered here alone must not hold it
    told = json.loads(registering.press("store", "gc", "--max-size", "1B", "--dry-run", "--json").stdout)
    assert told["bytes_needed"] > 0
    assert {one["stage"] for one in told["freed"]}.isdisjoint(STAGE_NAMES)

    other = azure.workspace()
    registering.edit("azure", workspace=other.name)
    assert registering.plan()["registered_model"]["status"] == "restore"
    assert registering.run()["registered_model"] == "restored"
    assert len(other.versions("models", "tiny-model")) == len(workspace.versions("models", "tiny-model")) == 1


def test_what_is_in_the_way_is_told_before_anything_runs(azure, registering):
    registering.edit("dataset", seed=7)
    azure.traffic.add_faults(Fault(r"^GET .*management.azure.com", status=403, code="AuthorizationFailed", times=9))
    done = registering.press("run", "tiny")
    assert done.returncode == 2
    assert "no rights on the workspace" in done.stderr
    assert registering.plan()["dataset"]["status"] == "run"
    registering.edit("azure", workspace="../other")
    done = registering.press("run", "tiny")
    assert done.returncode == 2
    assert "azure.workspace: found '../other'" in done.stderr
