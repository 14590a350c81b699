"""press store gc: frees what was used least recently, never what a model, a run or a pinned experiment needs."""

from __future__ import annotations

import json

import pytest

from orchestration.recorded import SqliteRecords
from orchestration.turns import Turns
from resources.store.store import Store
from tests.project import Project


@pytest.fixture
def other_adapter(project) -> Project:
    """The project with an adapter that no registered model has; the experiment is back at the registered one."""
    project.edit("lora_adapter", r=2)
    project.run("--select", "lora_adapter")
    project.edit("lora_adapter", r=4)
    project.run()
    return project


def gc(project: Project, *arguments: str) -> dict:
    done = project.press("store", "gc", "--max-size", "1B", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def adapters(freed: list[dict]) -> list[str]:
    return [row["digest"] for row in freed if row["stage"] == "lora_adapter"]


def test_gc_keeps_registered_models_and_pinned_experiments(other_adapter):
    project = other_adapter
    registered = SqliteRecords(project.home).histories(["tiny"])["tiny"].stages
    told = gc(project, "--dry-run")
    [digest] = adapters(told["freed"])
    assert Store(project.home).manifest(digest) and told["seconds_to_rebuild"] > 0 and told["bytes_after"] > 0
    assert not {row["digest"] for row in told["freed"]} & {stage.data_version for stage in registered.values()}

    project.edit("lora_adapter", r=2)
    project.edit("store", pinned=True)
    assert project.run("--select", "lora_adapter")["lora_adapter"] == "restored"
    assert adapters(gc(project)["freed"]) == []
    assert project.plan()["lora_adapter"]["status"] == "fresh"

    project.edit("store", pinned=False)
    project.edit("lora_adapter", r=4)
    assert project.run()["lora_adapter"] == "restored"
    assert adapters(gc(project)["freed"]) == [digest]
    assert {stage["status"] for stage in project.plan().values()} == {"fresh"}
    assert json.loads(project.press("store", "verify", "--json").stdout)["damaged"] == []
    project.edit("lora_adapter", r=2)
    lost = project.plan()["lora_adapter"]
    assert lost["status"] == "run"


def test_gc_keeps_what_a_run_in_progress_was_made_of(other_adapter):
    project = other_adapter
    project.edit("lora_adapter", r=2)
    project.run("--select", "lora_adapter")
    with Turns(project.home).take("tiny", print):  # as a run has it
        assert adapters(gc(project)["freed"]) == []
    project.edit("lora_adapter", r=4)
    project.run()
    assert len(adapters(gc(project)["freed"])) == 1


def test_gc_with_a_broken_experiment_file_frees_nothing(project):
    (project.root / "experiments" / "broken.yaml").write_text("store: {pinned: maybe}\n")
    done = project.press("store", "gc", "--max-size", "1B")
    assert done.returncode == 2 and "broken.yaml" in done.stderr


def test_a_size_that_is_none_is_a_request_error(project):
    done = project.press("store", "gc", "--max-size", "plenty")
    assert done.returncode == 2 and "--max-size" in done.stderr and "'plenty'" in done.stderr and "GB" in done.stderr


def test_gc_says_what_it_does(project):
    done = project.press("store", "gc", "--max-size", "100GB", "--dry-run")
    assert done.returncode == 0 and "would hold" in done.stderr


def test_a_run_that_finds_everything_fresh_counts_as_use(project):
    manifests = project.home / "store" / "manifests"
    recorded = SqliteRecords(project.home).histories(["tiny"])["tiny"].stages
    files = [manifests / f"{stage.data_version}.json" for stage in recorded.values()]
    before = max(file.stat().st_mtime_ns for file in files)
    project.plan()
    assert max(file.stat().st_mtime_ns for file in files) == before
    project.run()
    assert min(file.stat().st_mtime_ns for file in files) > before
