"""What the benchmark asks of every tool: two commands, and what the second one executed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from assets.recipes import STAGE_NAMES
from benchmarks.staleness.stage import STAGE_LOG
from benchmarks.staleness.workspace import Workspace
from resources.preloaded import QUIET

TIMEOUT = 600


class ToolFailed(Exception):
    """A command of a tool ended with an error; carries its output."""


@dataclass(frozen=True)
class Update:
    """Whole-process seconds of bringing everything up to date, and the stages whose work was done."""

    seconds: float
    executed: frozenset[str]


class Tool(ABC):
    """A tool that keeps the artifacts of one experiment up to date in a workspace."""

    name: ClassVar[str]
    stages: ClassVar[tuple[str, ...]] = STAGE_NAMES  # those that it has
    reproduces: ClassVar[tuple[str, ...]] = ("dataset", "awq_model", "lora_adapter", "onnx_model")

    home: ClassVar[str]  # folder of the workspace where it keeps what is its own

    def prepare(self, workspace: Workspace) -> None:
        """Write the tool's own files into a new workspace; runs no stage."""
        return

    @abstractmethod
    def update_command(self, workspace: Workspace) -> list[str]:
        """The command that brings everything up to date."""

    def find_command(self, workspace: Workspace) -> list[str] | None:
        """The command that says what is stale and runs nothing; None where the tool has none."""
        return None

    def environment(self, workspace: Workspace) -> dict[str, str]:
        """What its commands find in the environment beside the user's own."""
        return {}

    def follow(self, workspace: Workspace) -> None:
        """Edit the tool's own files by hand as a user must after the experiment names another data file."""
        return

    def artifacts(self, workspace: Workspace) -> dict[str, Path]:
        """Stage → folder of its artifact, where the tool keeps one."""
        return {name: workspace.root / "artifacts" / "tiny" / name for name in self.stages}

    def home_folder(self, workspace: Workspace) -> Path:
        return workspace.root / f"{self.home}{workspace.home_suffix}"

    def move_home(self, workspace: Workspace) -> None:
        """Move what the tool keeps for itself to another folder, and tell it."""
        before = self.home_folder(workspace)
        workspace.home_suffix = "-moved"
        before.rename(self.home_folder(workspace))

    def executed(self, workspace: Workspace, answer: str, log: list[str]) -> frozenset[str]:
        """The stages that an update executed, from its standard output and the log that stages write."""
        return frozenset(log)

    def update(self, workspace: Workspace) -> Update:
        with tempfile.TemporaryDirectory() as temporary:
            log = Path(temporary) / "executed"
            log.touch()
            seconds, answer = self.run(workspace, self.update_command(workspace), {STAGE_LOG: str(log)})
            executed = self.executed(workspace, answer, log.read_text(encoding="utf-8").split())
        return Update(seconds, executed)

    def find(self, workspace: Workspace) -> tuple[float, str] | None:
        """Whole-process seconds and answer of the command that finds what is stale."""
        command = self.find_command(workspace)
        return self.run(workspace, command) if command else None

    def run(
        self, workspace: Workspace, command: list[str], environment: dict[str, str] | None = None
    ) -> tuple[float, str]:
        """Seconds and standard output of `command`, run in the workspace to its end."""
        variables = {
            **os.environ,
            **QUIET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            **self.environment(workspace),
            **workspace.environment,
            **(environment or {}),
        }
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=workspace.root, env=variables, capture_output=True, text=True, timeout=TIMEOUT
        )
        seconds = time.perf_counter() - started
        if done.returncode != 0:
            raise ToolFailed(f"{self.name}: {' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return seconds, done.stdout
