"""Dagster's own Unsynced marks against the planner's statuses, as the webserver's GraphQL tells them.

Dagster looks one step back: it marks a stage whose code version is not the recorded one, or one of whose inputs has
another data version than the one the stage recorded. The planner looks all the way, and calls a stage behind a marked
one maybe. So the marks are equal when Dagster marks exactly the stages that changed by themselves or by an input that
is new already, when every other stage that is not fresh lies behind a marked one, and when no fresh stage is marked.
What Dagster cannot know of is the world outside its records: an artifact that was lost, a model that was withdrawn.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.history import asset_key, open_instance
from tests.orchestration.code_trees import append_line, copy_code, install, plan_from
from tests.orchestration.dagster_services import Dagster, webserver
from tests.orchestration.mutations import MADE_FROM, MUTATIONS, SOURCES, STAGES
from tests.project import Project

NODES = """query Nodes($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) {
  assetKey { path } staleStatus staleCauses { category } } }"""
Marks = dict[str, tuple[str, set[str]]]  # stage → stale status, categories of the causes
Planned = Mapping[str, Mapping[str, Any]]  # stage → what press plan --json says of it
ALL_FRESH: Marks = dict.fromkeys(STAGES, ("FRESH", set()))


def marks(dagster: Dagster, experiments: list[str]) -> dict[str, Marks]:
    """Experiment → what Dagster says of each stage."""
    keys = [{"path": [experiment, stage]} for experiment in experiments for stage in STAGES]
    found: dict[str, Marks] = {experiment: {} for experiment in experiments}
    for node in dagster.ask(NODES, keys=keys)["assetNodes"]:
        experiment, stage = node["assetKey"]["path"]
        found[experiment][stage] = (node["staleStatus"], {cause["category"] for cause in node["staleCauses"]})
    return found


def expected_marks(planned: Planned) -> Marks:
    """The marks that follow from a plan."""
    return {stage: _mark(stage, planned) for stage in STAGES}


def _mark(stage: str, planned: Planned) -> tuple[str, set[str]]:
    one = planned[stage]
    if one["status"] == "blocked":  # its reasons are its gates; only a changed stage or input gets as far as those
        inputs_are_fresh = all(planned[name]["status"] == "fresh" for name in MADE_FROM[stage])
        return ("STALE", {"CODE"}) if inputs_are_fresh else ("FRESH", set())
    if [reason["ingredient"] for reason in one["reasons"]] == ["history"]:
        return "MISSING", set()
    categories = {category for reason in one["reasons"] if (category := _category(reason["ingredient"], planned))}
    return ("STALE" if categories else "FRESH"), categories


def _category(ingredient: str, planned: Planned) -> str | None:
    """Dagster's category of a cause; None for what it does not see (yet)."""
    kind, _, name = ingredient.partition(".")
    if name and kind in ("input", "record"):
        return "DATA" if name in SOURCES or planned[name]["status"] == "fresh" else None
    return None if kind in (*SOURCES, "artifact", "record") else "CODE"


def behind(marked: set[str]) -> set[str]:
    """The marked stages and all that are made from them, however indirectly."""
    found = set(marked)
    for stage, inputs in MADE_FROM.items():
        if found & set(inputs):
            found.add(stage)
    return found


def not_fresh(planned: Planned) -> set[str]:
    return {stage for stage, one in planned.items() if one["status"] != "fresh"}


@pytest.fixture(scope="module")
def mutated_marks(mutated_project, tmp_path_factory) -> dict[str, Marks]:
    with webserver(mutated_project.project, tmp_path_factory.mktemp("webserver")) as dagster:
        return marks(dagster, list(mutated_project.after))


@pytest.mark.parametrize("name", MUTATIONS)
def test_marks_equal_the_plan_after_every_mutation(name, mutated_project, mutated_marks):
    planned = mutated_project.planned(name)
    found = mutated_marks[mutated_project.experiment(name)]
    assert found == expected_marks(planned)
    marked = {stage for stage, (status, _) in found.items() if status != "FRESH"}
    assert marked <= not_fresh(planned) <= behind(marked)


@dataclass(frozen=True)
class Served:
    """A project, a copy of the code, and the webserver that runs it."""

    project: Project
    code: Path
    tools: Path
    dagster: Dagster

    def marks(self) -> Marks:
        return marks(self.dagster, ["tiny"])["tiny"]

    def planned(self) -> dict[str, Any]:
        return plan_from(self.code, self.project, self.tools)

    def press(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "orchestration.cli", *arguments]
        subprocess.run(
            command, cwd=self.code, env=self.project.environment, capture_output=True, check=True, timeout=120
        )


@dataclass(frozen=True)
class ProjectWithTools(Project):
    """A project whose commands and services find other versions of tools in `tools`."""

    tools: Path

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"PYTHONPATH": str(self.tools)}


@pytest.fixture
def served(project, tmp_path) -> Iterator[Served]:
    code, tools = copy_code(tmp_path / "code"), tmp_path / "tools"
    tools.mkdir()
    with webserver(ProjectWithTools(project.root, tools), tmp_path, code / "workspace.yaml") as dagster:
        yield Served(ProjectWithTools(project.root, tools), code, tools, dagster)


def test_marks_follow_files_after_a_plan_and_code_after_a_reload(served):
    assert served.marks() == expected_marks(served.planned()) == ALL_FRESH

    served.project.data.write_bytes(served.project.data.read_bytes() + b"\n")
    assert served.marks() == ALL_FRESH
    changed_data = served.planned()  # tells Dagster of the new data version
    assert served.marks() == expected_marks(changed_data) == ALL_FRESH | {"dataset": ("STALE", {"DATA"})}

    append_line(served.code, "resources/olive/passes/lora.py")
    install(served.tools, "sacrebleu", "999.1")
    served.project.edit("onnx_model", head="float")
    changed_code = served.planned()
    assert served.marks() == ALL_FRESH | {"dataset": ("STALE", {"DATA"})}
    assert served.dagster.reload() == ""
    assert served.marks() == expected_marks(changed_code)
    stale = {stage for stage, (status, _) in served.marks().items() if status == "STALE"}
    assert stale == {"dataset", "lora_adapter", "onnx_model", "eval_report"}
    assert not_fresh(changed_code) == behind(stale) == set(STAGES) - {"awq_model"}


def test_dagster_cannot_know_what_was_lost_or_withdrawn_and_press_run_mends_it(served):
    shutil.rmtree(served.project.home / "registry")
    assert not_fresh(served.planned()) == {"registered_model"}
    for blob in (served.project.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b'{"prompt"'):
            blob.unlink()
    planned = served.planned()
    assert (planned["dataset"]["status"], planned["awq_model"]["status"]) == ("run", "fresh")
    assert served.marks() == ALL_FRESH
    served.press("run", "tiny")
    assert not_fresh(served.planned()) == set()
    assert served.marks() == ALL_FRESH


def test_a_wiped_stage_is_restored_and_nothing_behind_it_is_touched(served):
    """Dagster, which takes the wiped version for lost, marks what is made from it, too, until it is restored.

    Sources that were wiped, or materialized by hand, are observed again by the plan itself.
    """
    with open_instance(served.project.home) as instance:
        instance.wipe_assets([asset_key("tiny", "lora_adapter"), asset_key("tiny", "source_data")])
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key("tiny", "base_model")))
    assert {stage: one["status"] for stage, one in served.planned().items() if one["status"] != "fresh"} == {
        "lora_adapter": "restore"
    }
    found = served.marks()
    assert found["lora_adapter"][0] == "MISSING"
    assert {stage for stage, (status, _) in found.items() if status == "STALE"} == {"onnx_model", "eval_report"}
    served.press("run", "tiny")
    assert served.marks() == expected_marks(served.planned()) == ALL_FRESH
