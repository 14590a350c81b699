"""A shared store between machines: what one pressed the other restores, and damage there stops nobody."""

from __future__ import annotations

import json
import shutil

import pytest

from assets.recipes import STAGE_NAMES
from orchestration.recorded import SqliteRecords
from tests.azure.faults import Fault
from tests.project import Project

MANY = 10_000


def share(project: Project, workspace, **values) -> None:
    account_url, _, container = workspace.container_url.rpartition("/")
    remote = {"account_url": account_url, "container": container, "prefix": "team/press", **values}
    project.edit("store", remote=remote)


@pytest.fixture
def shared(project, azure, workspace, monkeypatch) -> Project:
    """A finished project with a shared store, which a SAS opens."""
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))
    share(project, workspace)
    return project


@pytest.fixture
def pushed(shared) -> Project:
    """The same with everything in the shared store."""
    done = shared.press("store", "push", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    return shared


def another_machine(project: Project) -> Project:
    """The same files and an empty PRESS_HOME."""
    shutil.rmtree(project.home)
    return project


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_empty_machine_restores_all_six_and_computes_nothing(azure, pushed):
    before = SqliteRecords(pushed.home).histories(["tiny"])["tiny"].stages
    machine = another_machine(pushed)
    azure.traffic.forget()
    assert {one["status"] for one in machine.plan().values()} == {"run", "maybe"}
    assert azure.traffic.requests() == []  # planning stays offline
    assert machine.run() == dict.fromkeys(STAGE_NAMES, "restored")
    after = SqliteRecords(machine.home).histories(["tiny"])["tiny"].stages
    assert {name: one.data_version for name, one in after.items()} == {
        name: one.data_version for name, one in before.items()
    }
    assert azure.traffic.requests("^PUT") == []
    azure.traffic.forget()
    assert {one["status"] for one in machine.plan().values()} == {"fresh"}
    assert machine.run() == dict.fromkeys(STAGE_NAMES, "fresh")
    assert azure.traffic.requests() == []
    assert json.loads(machine.press("store", "verify", "--json").stdout)["damaged"] == []
