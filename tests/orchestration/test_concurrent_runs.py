"""Runs of two experiments at once: what both are made of is computed once."""

from __future__ import annotations

import json
import shutil


def test_a_stage_that_two_experiments_share_is_computed_once(project):
    project.edit("awq_model", seed=1)
    shutil.copy(project.root / "experiments" / "tiny.yaml", project.root / "experiments" / "other.yaml")
    runs = [project.start("run", name, "--select", "awq_model", "--json") for name in ("tiny", "other")]
    answers = [(run, *run.communicate(timeout=300)) for run in runs]
    assert [run.returncode for run, _, _ in answers] == [0, 0], answers
    stages = [stage for _, out, _ in answers for stage in json.loads(out)["stages"] if stage["stage"] == "awq_model"]
    assert sorted(stage["outcome"] for stage in stages) in (["computed", "reused"], ["computed", "restored"])
    assert stages[0]["data_version"] == stages[1]["data_version"]
