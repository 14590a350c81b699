"""The shipped default experiment on the real SmolLM2, from nothing to a registered model that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import shown_commands

PRESS = Path(sys.executable).parent / "press"
REPORT_BARS = {"agreement": 0.93, "exact_agreement": 0.999, "kl_nats": 0.01, "perplexity_drop": 0.2}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("travel") / "home"


def press(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PRESS_EXPERIMENTS"}
    return subprocess.run(
        [PRESS, *arguments], env=environment | {"PRESS_HOME": str(home)}, capture_output=True, text=True, check=False
    )


def test_travel_from_nothing_to_an_answer(home):
    first = press(home, "run", "travel", "--json")
    assert first.returncode == 0, first.stderr
    stages = {stage["stage"]: stage for stage in json.loads(first.stdout)["stages"]}
    assert [stage["outcome"] for stage in stages.values()] == ["computed"] * 6

    report = json.loads((home / "store" / "trees" / stages["eval_report"]["data_version"] / "report.json").read_text())
    parity = report["parity"]
    assert min(parity["exact"]["agreement"], parity["exact_base"]["agreement"]) >= REPORT_BARS["exact_agreement"]
    assert min(parity["shipped"]["agreement"], parity["shipped_base"]["agreement"]) >= REPORT_BARS["agreement"]
    assert max(parity["shipped"]["kl_nats"], parity["shipped_base"]["kl_nats"]) < REPORT_BARS["kl_nats"]
    assert report["quality"]["perplexity_drop"] >= REPORT_BARS["perplexity_drop"]

    second = press(home, "run", "travel", "--json")
    assert {stage["outcome"] for stage in json.loads(second.stdout)["stages"]} == {"fresh"}

    answer = json.loads(press(home, "chat", "travel", "What should I see in Lisbon?", "--json").stdout)
    assert answer["text"].startswith("Ah, ") and "Tip:" in answer["text"], answer["text"]

    for arguments in shown_commands(".venv/bin/press"):
        shown = press(home, *arguments)
        assert shown.returncode == 0, (arguments, shown.stderr)
