"""Olive's own cache: a workflow of the two stages that Olive has (olive_workflow.py), run again after every change.

Preparing its inputs, token samples of the calibration text and the rows to train on, is a step of the user's before
Olive and not timed. Olive has no command that says what is stale.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from assets.recipes import open_stages
from assets.stage import Attempt
from benchmarks.staleness.olive_workflow import CHECKPOINTS, ROWS, SAMPLES
from benchmarks.staleness.tool import Tool, Update
from benchmarks.staleness.workspace import Workspace
from resources.calibration_text import calibration_part, token_samples
from resources.progress import RecordedProgress


class OliveCache(Tool):
    """The cache is olive-cache/ of the workspace."""

    name = "Olive's cache"
    home = "olive-cache"
    stages = ("awq_model", "lora_adapter")
    reproduces = ()

    def update_command(self, workspace: Workspace) -> list[str]:
        return [sys.executable, "-m", "benchmarks.staleness.olive_workflow", self.home_folder(workspace).name]

    def update(self, workspace: Workspace) -> Update:
        prepare_inputs(workspace)
        return super().update(workspace)

    def artifacts(self, workspace: Workspace) -> dict[str, Path]:
        return {}


def prepare_inputs(workspace: Workspace) -> None:
    """Write the samples to calibrate on and the rows to train on into prepared/; drop checkpoints of earlier runs."""
    from transformers import AutoTokenizer

    experiment, prepared = workspace.experiment(), workspace.root / "prepared"
    prepared.mkdir(exist_ok=True)
    shutil.rmtree(prepared / CHECKPOINTS, ignore_errors=True)
    spec = experiment.awq_model
    tokenizer = AutoTokenizer.from_pretrained(workspace.base_model, local_files_only=True)
    text = calibration_part(workspace.text.read_text(encoding="utf-8"))
    samples = token_samples(tokenizer, text, spec.samples, spec.tokens, spec.seed)
    (prepared / SAMPLES).write_text(json.dumps(samples), encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        source, dataset = Path(temporary) / "source", Path(temporary) / "dataset"
        source.mkdir()
        dataset.mkdir()
        shutil.copyfile(workspace.rows, source / "source.jsonl")
        attempt = Attempt(dataset, Path(temporary), {"source_data": source}, RecordedProgress())
        open_stages(experiment)["dataset"].produce(attempt)
        shutil.copyfile(dataset / "train.jsonl", prepared / ROWS)
