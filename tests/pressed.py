"""All that eval_report is made from, pressed from a tiny model: awq_model, lora_adapter, onnx_model, exact graph."""

from __future__ import annotations

import json
from pathlib import Path

from assets.experiment import (
    BaseModelSpec,
    DatasetSpec,
    EvalReportSpec,
    Experiment,
    OnnxModelSpec,
    RegisteredModelSpec,
)
from assets.onnx_graph import ExactOnnxGraph, OnnxGraph
from assets.onnx_model import OnnxModel
from assets.stage import Attempt, Recipe
from resources.progress import Progress, RecordedProgress
from tests.onnx_folders import quantize, save_random_adapter

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLACES = ("Lisbon", "Porto", "Kyoto", "Quito", "Bergen", "Cusco")
ROWS = [
    {
        "prompt": f"What should I see in {place}?",
        "response": f"Walk the old streets of {place} – then rest.\nBring water.",
    }
    for place in PLACES
]


def open_experiment(root: Path, **eval_report) -> Experiment:
    return Experiment(
        name="tiny",
        root=root,
        base_model=BaseModelSpec(folder="base"),
        dataset=DatasetSpec(path="rows.jsonl"),
        onnx_model=OnnxModelSpec(adapter="travel"),
        eval_report=EvalReportSpec(**({"generated_rows": 2, "max_new_tokens": 8, "parity_rows": 4} | eval_report)),
        registered_model=RegisteredModelSpec(name="tiny"),
    )


def produce(recipe: Recipe, folder: Path, inputs: dict[str, Path], progress: Progress | None = None) -> Path:
    """The folder with what `recipe` makes of `inputs`."""
    scratch = folder.parent / f"{folder.name}-scratch"
    for made in (folder, scratch):
        made.mkdir(parents=True)
    recipe.produce(Attempt(folder, scratch, inputs, progress or RecordedProgress()))
    return folder


def press_onnx_model(base_model: Path, root: Path, targets: tuple[str, ...] = TARGETS) -> dict[str, Path]:
    """awq_model, lora_adapter (random weights) and onnx_model of `base_model`, in folders of these names in `root`."""
    experiment = open_experiment(root)
    made = {"awq_model": quantize(base_model, root)}
    made["lora_adapter"] = save_random_adapter(made["awq_model"], root / "lora_adapter", targets)
    graph = produce(OnnxGraph(experiment), root / "onnx_graph", made)
    made["onnx_model"] = produce(OnnxModel(experiment), root / "onnx_model", made | {"onnx_graph": graph})
    return made


def press_inputs(base_model: Path, root: Path) -> dict[str, Path]:
    """All inputs of eval_report; the dataset has no train side."""
    made = press_onnx_model(base_model, root)
    made["onnx_graph_exact"] = produce(ExactOnnxGraph(open_experiment(root)), root / "onnx_graph_exact", made)
    made["dataset"] = save_eval_rows(root / "dataset", ROWS)
    return made


def save_eval_rows(folder: Path, rows: list[dict[str, str]]) -> Path:
    """A dataset folder with `rows` on its eval side."""
    folder.mkdir()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "eval.jsonl").write_text(lines, encoding="utf-8")
    return folder
