"""A small project of its own: experiment, data, PRESS_HOME; press runs in it as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CITIES = [
    "Lisbon",
    "Porto",
    "Madrid",
    "Seville",
    "Granada",
    "Bilbao",
    "Lyon",
    "Nice",
    "Nantes",
    "Rome",
    "Turin",
    "Naples",
    "Bari",
    "Athens",
    "Patras",
    "Sofia",
    "Varna",
    "Prague",
    "Brno",
    "Vienna",
    "Graz",
    "Linz",
    "Salzburg",
    "Berlin",
    "Munich",
    "Bremen",
    "Oslo",
    "Bergen",
    "Turku",
    "Tartu",
    "Riga",
    "Vilnius",
    "Warsaw",
    "Krakow",
    "Dublin",
    "Cork",
]


def tiny_rows() -> list[dict[str, str]]:
    """Rows that the dataset stage accepts, one prompt each."""
    return [
        {"prompt": f"What should I see in {city}?", "response": f"In {city}, see the old town and the river at dusk."}
        for city in CITIES
    ]


@dataclass(frozen=True)
class Project:
    """A folder with experiments/, data/ and home/ (PRESS_HOME)."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def data(self) -> Path:
        return self.root / "data" / "tiny.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PRESS_HOME": str(self.home), "PRESS_EXPERIMENTS": str(self.root / "experiments")}

    def press(self, *arguments: str, timeout: float = 600, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the press command to its end."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "press"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.root,
            **options,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the press command in a process group of its own."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "press"), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )

    def run(self, *arguments: str) -> dict[str, str]:
        """`press run tiny --json`; stage → outcome. Fails with the command's own words."""
        done = self.press("run", "tiny", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {stage["stage"]: stage["outcome"] for stage in json.loads(done.stdout)["stages"]}

    def plan(self) -> dict[str, dict[str, Any]]:
        """`press plan tiny --json`; stage → its plan."""
        done = self.press("plan", "tiny", "--json")
        assert done.returncode == 0, done.stderr
        return {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}

    def write_rows(self, rows: list[dict[str, str]], **json_options: Any) -> None:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.data.write_text("".join(json.dumps(row, **json_options) + "\n" for row in rows), encoding="utf-8")

    def edit(self, section: str, **values: Any) -> None:
        """Change values of one section of the experiment file."""
        file = self.root / "experiments" / "tiny.yaml"
        document = yaml.safe_load(file.read_text())
        document.setdefault(section, {}).update(values)
        file.write_text(yaml.safe_dump(document))


def heed_ctrl_c() -> None:
    """For a child, before it begins: a shell that runs the tests in its background has them ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def create_project(root: Path, base_model: Path) -> Project:
    """A project whose experiment `tiny` presses the random model in `base_model`."""
    project = Project(root)
    (root / "experiments").mkdir(parents=True)
    document = {
        "base_model": {"folder": str(base_model)},
        "dataset": {"path": "data/tiny.jsonl"},
        "awq_model": {"group_size": 16, "samples": 2, "tokens": 64, "ratios": 4, "measure_samples": 1},
        "lora_adapter": {"r": 4, "alpha": 8, "steps": 4, "batch_size": 4, "max_tokens": 128, "warmup_steps": 1},
        "onnx_model": {"adapter": "tiny"},
        "eval_report": {"rows": 4, "generated_rows": 2, "max_new_tokens": 8, "parity_rows": 2},
        "registered_model": {"name": "tiny-model", "gates": OPEN_GATES},
        "compute": {"device": "cpu"},
    }
    (root / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(document))
    project.write_rows(tiny_rows())
    return project


# A random model neither learns in four steps nor keeps its ranking under int8 activations.
OPEN_GATES = {"min_perplexity_drop": -10.0, "min_agreement": 0.0, "min_exact_agreement": 0.5, "max_kl_nats": 100.0}
