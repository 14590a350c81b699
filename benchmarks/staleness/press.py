"""Olive Press: `press run` and `press plan` by the code in the workspace."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import EXPERIMENT, Workspace
from orchestration.recorded import SqliteRecords
from resources.store.store import Store

PRESS = [sys.executable, "-m", "orchestration.cli"]


class Press(Tool):
    """PRESS_HOME is home/ of the workspace."""

    name = "press"
    home = "home"

    def environment(self, workspace: Workspace) -> dict[str, str]:
        return {
            "PRESS_HOME": str(self.home_folder(workspace)),
            "PRESS_EXPERIMENTS": str(workspace.root / "experiments"),
        }

    def update_command(self, workspace: Workspace) -> list[str]:
        return [*PRESS, "run", EXPERIMENT, "--json"]

    def find_command(self, workspace: Workspace) -> list[str]:
        return [*PRESS, "plan", EXPERIMENT, "--json"]

    def find_all_command(self) -> list[str]:
        return [*PRESS, "plan", "--all", "--json"]

    def executed(self, workspace: Workspace, answer: str, log: list[str]) -> frozenset[str]:
        return frozenset(one["stage"] for one in json.loads(answer)["stages"] if one["outcome"] == "computed")

    def artifacts(self, workspace: Workspace) -> dict[str, Path]:
        home = self.home_folder(workspace)
        stages = SqliteRecords(home).histories([EXPERIMENT])[EXPERIMENT].stages
        return {name: Store(home).open(recorded.data_version) for name, recorded in stages.items()}
