"""press savings: what reruns did not spend, measured, for each run and over all of them."""

from __future__ import annotations

import json

from orchestration.history import asset_key, open_instance
from orchestration.savings import Saving, Savings, totals


def test_a_run_with_nothing_stale_saved_what_computing_took(project):
    listed = json.loads(project.press("store", "ls", "--json").stdout)["artifacts"]
    costs = {row["recipe"]: (row["seconds"], row["bytes"]) for row in listed}
    ran = json.loads(project.press("run", "tiny", "--json").stdout)
    for stage in ran["stages"]:
        seconds, size = costs[stage["stage"]]
        assert abs(stage["saved_seconds"] - seconds) < 0.002 and stage["saved_bytes"] == size
    assert ran["saved_seconds"] > 1 and ran["saved_bytes"] == sum(stage["saved_bytes"] for stage in ran["stages"])


def test_savings_add_up_over_runs_and_computing_saves_nothing(project):
    before = json.loads(project.press("savings", "tiny", "--json").stdout)
    assert before["total"]["saved_bytes"] == 0 and before["total"]["computed"] == 6
    runs = [json.loads(project.press("run", "tiny", "--json").stdout) for _ in range(2)]
    after = json.loads(project.press("savings", "--json").stdout)
    assert after["total"]["saved_bytes"] == sum(run["saved_bytes"] for run in runs)
    assert abs(after["total"]["saved_seconds"] - sum(run["saved_seconds"] for run in runs)) < 0.02
    assert {row["stage"]: (row["computed"], row["reused"]) for row in after["stages"]}["awq_model"] == (1, 2)
    shown = project.press("savings").stdout
    assert "awq_model" in shown and "all" in shown


def test_a_restored_stage_bears_its_savings_as_numbers_that_the_ui_plots(project):
    project.edit("dataset", eval_fraction=0.3)
    project.run("--select", "dataset")
    project.edit("dataset", eval_fraction=0.15)
    assert project.run("--select", "dataset")["dataset"] == "restored"
    with open_instance(project.home) as instance:
        event = instance.get_latest_materialization_event(asset_key("tiny", "dataset"))
        metadata = event.asset_materialization.metadata
        assert metadata["bytes saved"].value == metadata["bytes"].value > 0
        assert 0 <= metadata["seconds saved"].value <= metadata["seconds to compute"].value


def test_an_experiment_that_never_ran_has_none(project):
    assert json.loads(project.press("savings", "other", "--json").stdout)["stages"] == []


def test_savings_of_one_run_are_kept_together(tmp_path):
    saved = [
        Saving("2026-01-01T00:00:00+00:00", "a", stage, "fresh", 0.5, 2.0, 10) for stage in ("dataset", "awq_model")
    ]
    Savings(tmp_path).add(saved)
    Savings(tmp_path).add(saved[:1])
    rows = Savings(tmp_path).sums()
    assert [(row["stage"], row["reused"], row["saved_seconds"]) for row in rows] == [
        ("dataset", 2, 4.0),
        ("awq_model", 1, 2.0),
    ]
    assert totals(rows) == {"computed": 0, "reused": 3, "seconds": 1.5, "saved_seconds": 6.0, "saved_bytes": 30}
