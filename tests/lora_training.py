"""Trains a tiny adapter with the real stage, here or in a process of its own that a test can kill.

python -m tests.lora_training REQUEST.json reads {"awq_model", "dataset", "folder", "scratch", "spec"}; it prints a
line for each step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assets.experiment import BaseModelSpec, DatasetSpec, Experiment, LoraAdapterSpec, RegisteredModelSpec
from assets.lora_adapter import LoraAdapter
from assets.stage import Attempt
from resources.olive.workflow import run_workflow
from resources.progress import RecordedProgress

PLACES = ("Lisbon", "Kyoto", "Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Turin", "Perth", "Accra", "Tunis", "Dakar")
TINY = {"r": 4, "steps": 24, "batch_size": 4, "learning_rate": 0.01, "warmup_steps": 2, "checkpoint_steps": 4}


def quantize(base_model: Path, folder: Path) -> Path:
    """An olive-quantized copy of `base_model` in `folder`."""
    config = {
        "input_model": {"type": "HfModel", "model_path": str(base_model)},
        "passes": {"rtn": {"type": "Rtn", "group_size": 16, "sym": False}},
    }
    run_workflow(config, folder)
    return folder


def write_dataset(folder: Path, places: tuple[str, ...] = PLACES) -> Path:
    """A dataset folder with a few short train rows; its eval rows are no rows at all and must not be read."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"What is in {place}?", "response": f"Ah, {place}! Go and see."} for place in places]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "eval.jsonl").write_text("not for training\n", encoding="utf-8")
    return folder


def open_stage(root: Path, **spec: Any) -> LoraAdapter:
    """The stage of an experiment "tiny" whose section lora_adapter is TINY with `spec` over it."""
    experiment = Experiment(
        name="tiny",
        root=root,
        base_model=BaseModelSpec(folder="base"),
        dataset=DatasetSpec(path="rows.jsonl"),
        lora_adapter=LoraAdapterSpec(**(TINY | spec)),
        registered_model=RegisteredModelSpec(name="tiny"),
    )
    return LoraAdapter(experiment)


@dataclass
class Training:
    """One place to train in: the inputs, and where artifact and scratch go."""

    awq_model: Path
    dataset: Path
    folder: Path
    scratch: Path
    spec: Mapping[str, Any]
    progress: RecordedProgress = field(default_factory=RecordedProgress)

    def run(self) -> Path:
        """The artifact's folder, after training."""
        self.folder.mkdir(parents=True)
        inputs = {"awq_model": self.awq_model, "dataset": self.dataset}
        open_stage(self.folder, **self.spec).produce(Attempt(self.folder, self.scratch, inputs, self.progress))
        return self.folder

    def request(self) -> str:
        """What `python -m tests.lora_training` reads."""
        places = {name: str(getattr(self, name)) for name in ("awq_model", "dataset", "folder", "scratch")}
        return json.dumps(places | {"spec": dict(self.spec)})


class PrintedProgress(RecordedProgress):
    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        print(f"step {done}", flush=True)


if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    spec = request.pop("spec")
    Training(**{name: Path(place) for name, place in request.items()}, spec=spec, progress=PrintedProgress()).run()
