"""Run configs whose input model Olive does not hash: each of our runs has a cache of its own (workflow.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unhashed(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """`run_config` for a run with a cache of its own, to which Olive need not hash the base model (hf_folder.py)."""
    settings = dict(run_config["input_model"])
    folder = settings.pop("model_path")
    return {**run_config, "input_model": settings | {"type": "OlivePressHfFolder", "folder": folder}}
