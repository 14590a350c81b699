"""A plain Dagster project (dagster_project.py), asked and run by one script."""

from __future__ import annotations

import sys

from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import Workspace

SCRIPT = [sys.executable, "-m", "benchmarks.staleness.dagster_project"]


class PlainDagster(Tool):
    """DAGSTER_HOME is dagster/ of the workspace, artifacts lie in artifacts/."""

    name = "plain Dagster"
    home = "dagster"

    def prepare(self, workspace: Workspace) -> None:
        home = self.home_folder(workspace)
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")

    def environment(self, workspace: Workspace) -> dict[str, str]:
        return {"DAGSTER_HOME": str(self.home_folder(workspace))}

    def update_command(self, workspace: Workspace) -> list[str]:
        return SCRIPT

    def find_command(self, workspace: Workspace) -> list[str]:
        return [*SCRIPT, "--find"]
