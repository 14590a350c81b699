"""The real webserver, asked as the UI asks: whatever is materialized there ends in the state of press run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestration.recorded import SqliteRecords
from tests.orchestration.dagster_services import DATA_VERSION, OUTCOME, STAGES, Dagster, webserver
from tests.project import Project, tiny_rows

ALL_FRESH = dict.fromkeys(STAGES, "FRESH")


@dataclass(frozen=True)
class Served:
    """A project, at first as `press run tiny` left it, and its webserver; `unmade` is like `tiny` but never ran."""

    project: Project
    server: Dagster

    def statuses(self) -> dict[str, str]:
        """Stage → what the planner says of it."""
        return {stage: planned["status"] for stage, planned in self.project.plan().items()}


@pytest.fixture(scope="module")
def served(finished_project, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(finished_project.root, folder / "project", symlinks=True)
    project = Project(folder / "project")
    experiments = project.root / "experiments"
    shutil.copy(experiments / "tiny.yaml", experiments / "unmade.yaml")
    with webserver(project, folder) as server:
        yield Served(project, server)


def reformat_rows(project: Project) -> None:
    """Write the same rows as other bytes."""
    rows = [json.dumps(dict(reversed(row.items())), separators=(" , ", " : ")) for row in tiny_rows()]
    project.data.write_bytes("\r\n".join(rows).encode() + b"\r\n\r\n")


def test_stage_without_its_inputs_fails_with_what_to_do(served):
    run = served.server.launch("lora_adapter", experiment="unmade")
    assert served.server.end(run) == "FAILURE"
    [failure] = served.server.failures(run)
    assert "was never materialized. Materialize" in failure
    assert served.server.materialize("dataset", experiment="unmade") == "SUCCESS"


def test_all_six_at_once_compute_what_changed_and_reuse_the_rest(served):
    before = served.server.told(DATA_VERSION)
    reformat_rows(served.project)
    run = served.server.launch(*STAGES)
    assert served.server.end(run) == "SUCCESS"
    assert served.server.makers() == dict.fromkeys(STAGES, run)
    assert served.server.told(OUTCOME) == dict.fromkeys(STAGES, "reused") | {"dataset": "computed"}
    assert served.server.told(DATA_VERSION) == before
    assert served.server.marks() == ALL_FRESH
    assert set(served.statuses().values()) == {"fresh"}


def test_every_materialization_shows_its_numbers_tables_and_plots(served):
    nodes = served.server.nodes()
    for stage, node in nodes.items():
        entries = {entry["label"]: entry for entry in node["assetMaterializations"][0]["metadataEntries"]}
        assert {"outcome", "inputs", "key", "seconds"} <= entries.keys()
        numbers = [e for e in entries.values() if e["__typename"] in ("FloatMetadataEntry", "IntMetadataEntry")]
        assert len(numbers) > 3 or stage == "registered_model", stage
    kinds = {e["__typename"] for e in nodes["lora_adapter"]["assetMaterializations"][0]["metadataEntries"]}
    assert {"TableMetadataEntry", "MarkdownMetadataEntry"} <= kinds


def test_materialize_unsynced_wave_by_wave_ends_as_press_run_of_a_copy(served, tmp_path):
    shutil.copytree(served.project.root, tmp_path / "copy", symlinks=True)
    copy = Project(tmp_path / "copy")
    for project in (served.project, copy):
        project.edit("onnx_model", adapter="renamed")
    assert served.server.reload() == ""
    waves: list[list[str]] = []
    while unsynced := [stage for stage, mark in served.server.marks().items() if mark != "FRESH"]:
        waves.append(unsynced)
        assert served.server.materialize(*unsynced) == "SUCCESS"
    assert waves == [["onnx_model"], ["eval_report", "registered_model"]]
    assert set(served.statuses().values()) == {"fresh"}
    assert {stage for stage, outcome in copy.run().items() if outcome == "computed"} == {*waves[0], *waves[1]}
    reproducible = STAGES[:4]  # an eval_report holds how fast the model answered
    recorded = [SqliteRecords(project.home).histories(["tiny"])["tiny"].stages for project in (served.project, copy)]
    made, copied = [{name: stages[name].data_version for name in reproducible} for stages in recorded]
    assert made == copied


def test_runs_at_once_take_turns_and_compute_once(served):
    """Two from the UI and a press run; the edit needs no reload, because every run reads the files itself."""
    served.project.edit("lora_adapter", seed=1)
    runs = [served.server.launch("lora_adapter") for _ in range(2)]
    pressed = served.project.start("run", "tiny", "--select", "lora_adapter", "--json")
    answer, error = pressed.communicate(timeout=300)
    assert pressed.returncode == 0, error
    assert [served.server.end(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    outcomes = [served.server.outcomes(run)["lora_adapter"] for run in runs]
    outcomes += [stage["outcome"] for stage in json.loads(answer)["stages"] if stage["stage"] == "lora_adapter"]
    assert outcomes.count("computed") == 1 and set(outcomes) <= {"computed", "reused", "fresh"}, outcomes
    assert served.statuses()["lora_adapter"] == "fresh"
    materialized = [float(served.server.events(run, "MaterializationEvent")[0]["timestamp"]) for run in runs]
    ended = [float(served.server.events(run, "RunSuccessEvent")[0]["timestamp"]) for run in runs]
    assert min(ended) <= max(materialized)
