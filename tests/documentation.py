"""The commands that README and docs show, so that tests can run each one."""

from __future__ import annotations

import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def shown_commands(program: str) -> list[list[str]]:
    """The arguments of every indented command line that starts with `program`, comments left out, each once."""
    found: list[list[str]] = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for line in page.read_text(encoding="utf-8").splitlines():
            if not line.startswith("    " + program + " "):
                continue
            arguments = shlex.split(line, comments=True)[1:]
            if arguments not in found:
                found.append(arguments)
    return found
