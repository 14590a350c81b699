"""Copies of this project's code, to be changed by a test, and press as it runs from them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.project import Project

ROOT = Path(__file__).resolve().parents[2]
CODE = ("assets", "orchestration", "resources")


def copy_code(folder: Path) -> Path:
    """A copy of the code that press runs, in `folder`."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "workspace.yaml", folder)
    return folder


def append_line(code: Path, file: str, line: str = "ANOTHER_LINE = 1") -> None:
    """Add a line of source at the end of the module."""
    module = code / file
    module.write_text(f"{module.read_text()}\n{line}\n")


def install(folder: Path, distribution: str, version: str) -> Path:
    """Another version of a distribution as its metadata tells it; on PYTHONPATH it stands before the real one."""
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    return folder


def plan_from(code: Path, project: Project, python_path: Path | None = None, **options: Any) -> dict[str, Any]:
    """`press plan tiny --json` by the code in `code`; stage → its plan."""
    done = subprocess.run(
        [*options.pop("before", ()), sys.executable, "-m", "orchestration.cli", "plan", "tiny", "--json"],
        cwd=code,
        env=project.environment | {"PYTHONPATH": str(python_path or "")} | options.pop("environment", {}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}


def python_modules(code: Path) -> list[Path]:
    return sorted(file for name in CODE for file in (code / name).rglob("*.py"))
