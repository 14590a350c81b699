"""The sensor that keeps an experiment up to date, in one session of a real daemon; each test ends up to date."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration.turns import Turns
from tests.orchestration.dagster_services import OUTCOME, STAGES, Dagster, webserver_and_daemon
from tests.orchestration.test_webserver import reformat_rows
from tests.project import OPEN_GATES, Project

SENSOR = "keep_tiny_up_to_date"
FRESH = dict.fromkeys(STAGES, "fresh")


class Kept:
    """A project whose experiment `tiny` a sensor keeps up to date; `filled` is like it and filled by a backfill."""

    def __init__(self, project: Project, server: Dagster) -> None:
        self.project, self.server = project, server
        self.backfill = server.launch_backfill(*STAGES, experiment="filled")
        server.start_sensor(SENSOR)

    def runs(self) -> list[dict[str, Any]]:
        """The sensor's runs, newest first."""
        return self.server.sensor_runs(SENSOR)

    def next_run(self, before: list[dict[str, Any]]) -> dict[str, Any]:
        """The one run that came after `before`, ended."""

        def new() -> list[dict[str, Any]]:
            known = {run["runId"] for run in before}
            return [run for run in self.runs() if run["runId"] not in known]

        [run] = self.server.wait(new, "the sensor requested no run")
        return run | {"status": self.server.end(run["runId"])}

    def skip(self, told: str, after: str) -> dict[str, Any]:
        """The first tick after the tick `after` that was skipped with `told` in its reason; none of them fails."""

        def told_so() -> dict[str, Any] | None:
            ticks = [tick for tick in self.ticks() if int(tick["tickId"]) > int(after)]
            assert not [tick for tick in ticks if tick["error"]], ticks
            return next((tick for tick in reversed(ticks) if told in (tick["skipReason"] or "")), None)

        return self.server.wait(told_so, f"no tick was skipped with {told}")

    def ticks(self) -> list[dict[str, Any]]:
        return self.server.ticks(SENSOR)

    def now(self) -> str:
        """The id of the latest tick."""
        ticks = self.server.sensor(SENSOR)["sensorState"]["ticks"]
        return max((tick["tickId"] for tick in ticks), key=int, default="0")

    def statuses(self) -> dict[str, str]:
        """Stage → what the planner says of it."""
        return {stage: planned["status"] for stage, planned in self.project.plan().items()}


def move_gate(project: Project, threshold: float) -> None:
    """Make registered_model stale, which takes no time to compute."""
    project.edit("registered_model", gates=OPEN_GATES | {"min_perplexity_drop": threshold})


@pytest.fixture(scope="module")
def kept(finished_project, tmp_path_factory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(finished_project.root, folder / "project", symlinks=True)
    project = Project(folder / "project")
    # A data file of its own: the backfill comes when the daemon looks, and would compute what the sensor is to run.
    shutil.copy(project.data, project.root / "data" / "filled.jsonl")
    tiny = (project.root / "experiments" / "tiny.yaml").read_text()
    (project.root / "experiments" / "filled.yaml").write_text(tiny.replace("data/tiny.jsonl", "data/filled.jsonl"))
    with webserver_and_daemon(project, folder) as server:
        yield Kept(project, server)


def test_an_edit_is_run_once_even_beside_a_file_that_is_half_edited(kept):
    kept.skip("nothing is stale", after="0")
    half_edited = kept.project.root / "experiments" / "other.yaml"
    half_edited.write_text("dataset: {")
    move_gate(kept.project, -9.0)
    run = kept.next_run([])
    half_edited.unlink()
    assert run["status"] == "SUCCESS"
    assert kept.server.outcomes(run["runId"]) == {"registered_model": "computed"}
    kept.skip("nothing is stale", after=kept.now())
    assert kept.statuses() == FRESH
    assert len(kept.runs()) == 1


def test_a_mistake_in_the_file_is_told_and_mending_it_is_all_it_takes(kept):
    before, file = kept.runs(), kept.project.root / "experiments" / "tiny.yaml"
    good = file.read_text()
    file.write_text(good.replace("steps: 4", "stepps: 4"))
    assert "lora_adapter.stepps" in kept.skip("an unknown key", after=kept.now())["skipReason"]
    file.write_text(good)
    kept.skip("nothing is stale", after=kept.now())
    assert kept.runs() == before


def test_what_is_known_is_restored_without_a_run(kept):
    before = kept.runs()
    move_gate(kept.project, OPEN_GATES["min_perplexity_drop"])
    kept.skip("restored registered_model", after=kept.now())
    assert kept.server.told(OUTCOME)["registered_model"] == "restored"
    assert kept.statuses() == FRESH
    assert kept.runs() == before


def test_edited_data_is_observed_and_run_as_far_as_it_differs(kept):
    before, observed = kept.runs(), kept.server.observed("source_data")
    reformat_rows(kept.project)
    run = kept.next_run(before)
    assert run["status"] == "SUCCESS"
    assert kept.server.outcomes(run["runId"])["dataset"] == "computed"
    assert "computed" not in {what for stage, what in kept.server.outcomes(run["runId"]).items() if stage != "dataset"}
    assert kept.server.observed("source_data") != observed
    assert kept.statuses() == FRESH


def test_a_failing_stage_is_run_once_and_again_when_it_is_mended(kept):
    before = kept.runs()
    kept.project.edit("lora_adapter", target_modules=["nope"])
    failed = kept.next_run(before)
    assert failed["status"] == "FAILURE"
    reason = kept.skip(f"run {failed['runId'][:8]} ended as FAILURE", after=kept.now())["skipReason"]
    assert "lora_adapter.target_modules: found nope" in reason and "press run tiny" in reason
    kept.skip("ended as FAILURE", after=kept.now())
    assert len(kept.runs()) == len(before) + 1
    kept.project.edit("lora_adapter", target_modules=["q_proj"])
    mended = kept.next_run([failed, *before])
    assert mended["status"] == "SUCCESS"
    assert set(kept.server.outcomes(mended["runId"]).values()) == {"computed"}
    assert kept.statuses() == FRESH


def test_it_waits_for_a_press_run_in_progress(kept):
    before = kept.runs()
    with Turns(kept.project.home).take("tiny", print):
        move_gate(kept.project, -8.0)
        kept.skip("a run of tiny is in progress", after=kept.now())
        assert kept.runs() == before
    assert kept.next_run(before)["status"] == "SUCCESS"
    assert kept.statuses() == FRESH


def test_a_backfill_of_everything_ends_like_a_run(kept):
    """It began with the session, because the daemon looks at backfills every half minute only."""
    [run] = kept.server.end_backfill(kept.backfill)
    assert kept.server.makers("filled") == dict.fromkeys(STAGES, run)
    assert kept.server.outcomes(run) == dict.fromkeys(STAGES, "reused")
    done = kept.project.press("run", "filled", "--json")
    assert '"reused"' not in done.stdout and '"computed"' not in done.stdout and done.returncode == 0
