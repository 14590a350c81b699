"""The folder that each tool works in: the code of this project, one small experiment and what it is made from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assets.dataset import split_sides
from assets.experiment import Experiment, read_experiment
from tests.project import CITIES

ROOT = Path(__file__).resolve().parents[2]
CODE = ("assets", "benchmarks", "orchestration", "resources")
EXPERIMENT = "tiny"
# Every value that a tool may look at is written out. A random model neither learns nor keeps its ranking: open gates.
DOCUMENT: dict[str, Any] = {
    "base_model": {"folder": "base_model", "trust_remote_code": False},
    "dataset": {"path": "data/rows.jsonl", "eval_fraction": 0.15, "seed": 0, "max_damaged": 0},
    "awq_model": {
        "bits": 4,
        "group_size": 16,
        "symmetric": False,
        "calibration_text": "data/calibration.txt",
        "samples": 2,
        "tokens": 64,
        "ratios": 4,
        "clip": True,
        "measure_samples": 1,
        "seed": 0,
    },
    "lora_adapter": {
        "r": 4,
        "alpha": 8.0,
        "dropout": 0.0,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "steps": 4,
        "batch_size": 32,  # every row is trained several times, so that every change of one changes the adapter
        "learning_rate": 0.0005,
        "warmup_steps": 1,
        "max_tokens": 128,
        "checkpoint_steps": 10,
        "seed": 0,
    },
    "onnx_model": {"adapter": "tiny", "provider": "cpu", "head": "int8", "accuracy_level": 4},
    "eval_report": {"rows": 4, "generated_rows": 2, "max_new_tokens": 8, "parity_rows": 2, "seed": 0},
    "registered_model": {
        "name": "tiny-model",
        "registry": "local",
        "tags": {},
        "gates": {
            "min_perplexity_drop": -10.0,
            "min_agreement": 0.0,
            "min_exact_agreement": 0.5,
            "max_kl_nats": 100.0,
        },
    },
    "compute": {"device": "cpu"},
}


@dataclass
class Workspace:
    """Where a tool works; a mutation may move the root or the tool's own folder, and add to the environment."""

    root: Path
    home_suffix: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> Path:
        return self.root / self.document()["dataset"]["path"]

    @property
    def text(self) -> Path:
        return self.root / "data" / "calibration.txt"

    @property
    def base_model(self) -> Path:
        return self.root / "base_model"

    @property
    def experiment_file(self) -> Path:
        return self.root / "experiments" / f"{EXPERIMENT}.yaml"

    def experiment(self) -> Experiment:
        return read_experiment(self.experiment_file)

    def document(self) -> dict[str, Any]:
        return read_document(self.experiment_file)

    def set(self, place: str, value: Any) -> None:
        """Set the value at `place` ("section.field") of the experiment file."""
        document = self.document()
        *sections, name = place.split(".")
        inner = document
        for section in sections:
            inner = inner[section]
        if name not in inner or inner[name] == value:
            raise ValueError(f"{place}: {value!r} changes nothing")
        inner[name] = value
        write_experiment(self.experiment_file, document)


def create_workspace(root: Path, base_model: Path, text: str) -> Workspace:
    """A new workspace in `root`: code, experiments `tiny` and `other`, rows, calibration text, base model."""
    for name in CODE:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data").mkdir()
    (root / "experiments").mkdir()
    shutil.copytree(base_model, root / "base_model")
    (root / "data" / "calibration.txt").write_text(text, encoding="utf-8", newline="\n")
    (root / "data" / "rows.jsonl").write_text("".join(map(line, rows())), encoding="utf-8", newline="\n")
    for name in (EXPERIMENT, "other"):
        write_experiment(root / "experiments" / f"{name}.yaml", DOCUMENT)
    return Workspace(root)


def read_document(experiment_file: Path) -> dict[str, Any]:
    return yaml.safe_load(experiment_file.read_text(encoding="utf-8"))


def write_experiment(file: Path, document: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def row(city: str) -> dict[str, str]:
    return {
        "prompt": f"What should I see in {city}?",
        "response": f"In {city}, see the old town and the river at dusk.",
    }


def rows() -> list[dict[str, str]]:
    return [row(city) for city in CITIES]


def line(one: dict[str, str]) -> str:
    return json.dumps(one) + "\n"


def of_side(side: str, cities: tuple[str, ...] | list[str]) -> list[str]:
    """Those of `cities` whose rows the dataset stage of DOCUMENT puts on `side`, "train" or "eval"."""
    spec = DOCUMENT["dataset"]
    prompts = [row(city)["prompt"] for city in [*CITIES, *cities]]
    sides = split_sides(prompts, spec["eval_fraction"], spec["seed"], "benchmark")[len(CITIES) :]
    return [city for city, one in zip(cities, sides, strict=True) if one == side]
