"""The ONNX Runtime GenAI folder: the graph of the awq model, LoRA inputs on it, and the adapter's weights.

Paper: arXiv 2106.09685, LoRA. Formula: y = MatMulNBits(x) + (x A) B, A and B inputs of the graph with defaults of rank
0, so that the base answers without an adapter and several adapters serve on one base.
Recipe: assets/onnx_graph.py builds the graph once per awq model; here its targets get LoRA inputs, its data is linked
byte for byte, and adapters/NAME.onnx_adapter is written. New adapter weights make a new adapter file and nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from assets.experiment import OnnxModelSpec
from assets.onnx_graph import ARRIVED_FILE, GRAPH_FILE, TOOLS, OnnxGraph, describe, folder_bytes, write_json
from assets.stage import Attempt, Facts, Stage
from resources.errors import ConfigurationError, StageError
from resources.olive.baked_adapter import bake_graphs
from resources.olive.graft import graft_adapter
from resources.olive.pass_list import check_list, check_parameters, pass_tools
from resources.olive.targets import TARGETS


class OnnxModel(Stage):
    """A folder that ONNX Runtime GenAI opens: model.onnx and its data, genai_config.json, tokenizer, adapters/."""

    name = "onnx_model"
    made_from = ("awq_model", "lora_adapter")
    ignores: ClassVar = {"awq_model": ("awq_metrics.json",), "lora_adapter": ("training_curve.json",)}
    parts = (OnnxGraph,)
    tools = TOOLS

    def spec(self) -> OnnxModelSpec:
        return self.experiment.onnx_model

    def check(self) -> None:
        """Codes are quantized once: int4 or int8 is what the awq model has. Olive's passes have names."""
        check_list(self.spec().olive_passes, "onnx_model", self._place(), TARGETS[self.spec().provider].onnxruntime)
        asked, bits = self.spec().precision, self.experiment.awq_model.bits
        if self.experiment.awq_model.olive_passes:
            return  # how many bits they leave is seen when they ran
        if asked in ("int4", "int8") and asked != f"int{bits}":
            raise ConfigurationError(
                f"{self.experiment.name}.yaml: onnx_model.precision",
                f"{asked}, and awq_model.bits is {bits}, so that its codes would be quantized a second time",
                f"int{bits}, or no precision, which keeps the codes; fp16 or fp32 holds their values in float",
                f"Set awq_model.bits to {asked.removeprefix('int')}",
            )

    def check_run(self, here: bool) -> None:
        """Olive says whether it takes the passes that are named, with their parameters."""
        target = TARGETS[self.spec().provider]
        if passes := self.spec().olive_passes:
            check_parameters(passes, "onnx_model", self._place(), target.device, target.onnxruntime)

    def own_ingredients(self) -> dict[str, Any]:
        """Its own and the packages that the named passes need."""
        tools = pass_tools(self.spec().olive_passes)
        return super().own_ingredients() | {f"tool.{name}": told for name, told in tools.items()}

    def _place(self) -> str:
        return f"{self.experiment.name}.yaml: onnx_model.olive_passes"

    def _check_bits(self, arrived: dict[str, Any]) -> None:
        asked = self.spec().precision
        if asked in ("int4", "int8") and [f"int{bits}" for bits in arrived["bits"]] != [asked]:
            found = ", ".join(f"int{bits}" for bits in arrived["bits"]) or "float"
            raise StageError(
                "onnx_model",
                f"the layers of the graph are {found}, and onnx_model.precision is {asked}",
                "Leave precision out, which keeps the codes, or quantize to it in awq_model",
            )

    def produce(self, attempt: Attempt) -> None:
        """Graft LoRA inputs onto the part onnx_graph and write the adapter file."""
        graph, adapter = attempt.inputs["onnx_graph"], attempt.inputs["lora_adapter"]
        self._check_bits(json.loads((graph / ARRIVED_FILE).read_text(encoding="utf-8")))
        grafted = graft_adapter(graph, adapter, attempt.folder, self.spec().adapter)
        if self.spec().provider == "cuda":
            bake_graphs(graph, attempt.folder, self.spec().adapter)
        arrived = json.loads((graph / ARRIVED_FILE).read_text(encoding="utf-8"))
        (attempt.folder / ARRIVED_FILE).unlink()  # the link, not the part's file
        write_json(attempt.folder / ARRIVED_FILE, arrived | {"grafted": grafted})
        attempt.progress.log(f"{len(grafted)} projections take the adapter {self.spec().adapter}")

    def facts(self, folder: Path) -> Facts:
        """Bytes, quantized and grafted projections, the files, and the options that arrived."""
        arrived = json.loads((folder / ARRIVED_FILE).read_text(encoding="utf-8"))
        numbers = {
            "bytes": folder_bytes(folder),
            "data_bytes": (folder / f"{GRAPH_FILE}.data").stat().st_size,
            "adapter_bytes": (folder / "adapters" / f"{self.spec().adapter}.onnx_adapter").stat().st_size,
            "quantized_layers": arrived["layers"],
            "grafted_layers": len(arrived["grafted"]),
        }
        return Facts(numbers, tables={"files": _files(folder)}, texts={"options": _summary(arrived)})


def _files(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(file for file in folder.rglob("*") if file.is_file())
    return [{"file": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size} for path in paths]


def _summary(arrived: dict[str, Any]) -> str:
    counts = Counter(part.rpartition(".")[2] for part in arrived["grafted"])
    targets = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"Built for {arrived['provider']}: {describe(arrived)}. LoRA inputs on {targets}."
