"""What the press command answers: one JSON document on standard output with --json, all else on standard error."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="print one JSON document on standard output")]


def print_json(document: Any) -> None:
    """Write the one document of a command."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """Write a line for people."""
    sys.stderr.write(message + "\n")
