"""Olive passes over a graph that was built: run, and looked at whether LoRA inputs and GenAI find what they need."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from resources.errors import StageError
from resources.olive.onnx_model import passes_run_config
from resources.olive.projections import projections
from resources.olive.targets import TARGETS
from resources.olive.workflow import run_workflow
from resources.progress import Progress

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"


def run_graph_passes(
    graph: Path, olive_passes: Sequence[Mapping[str, Any]], provider: str, folder: Path, progress: Progress
) -> None:
    """Leave in `folder` what `olive_passes`, in order, make of the ONNX Runtime GenAI folder `graph`.

    A StageError says which projections the passes did not leave, or that ONNX Runtime GenAI does not answer with the
    graph, where it can run graphs for `provider` here.
    """
    import onnx_ir as ir

    named = ", ".join(one["type"] for one in olive_passes)
    made = folder / ".passes"
    run_workflow(passes_run_config(graph, olive_passes, provider), made, progress)
    model, before = ir.load(made / GRAPH_FILE), ir.load(graph / GRAPH_FILE)
    left = dict(projections(model.graph))
    if lost := [name for name, _ in projections(before.graph) if name not in left]:
        raise StageError(
            "onnx_graph",
            f"olive_passes ({named}) leave no MatMul or MatMulNBits under the name of {lost[0]} and {len(lost) - 1} "
            "more projections, onto which LoRA inputs are grafted",
            "Leave out the pass that fuses or renames them",
        )
    try:
        ir.save(model, folder / GRAPH_FILE, external_data=DATA_FILE)
    except OSError as error:  # a pass may leave a graph without its data
        raise StageError("onnx_graph", f"olive_passes ({named}) leave a graph without its weights: {error}") from error
    del model, left
    for file in made.iterdir():
        if not file.name.startswith(GRAPH_FILE):
            shutil.move(file, folder / file.name)
    shutil.rmtree(made)
    _check_answers(folder, provider, named)


def _check_answers(folder: Path, provider: str, named: str) -> None:
    import onnxruntime

    if TARGETS[provider].onnxruntime not in onnxruntime.get_available_providers():
        return
    og: Any = import_module("onnxruntime_genai")
    try:
        model = og.Model(str(folder))
        generator = og.Generator(model, og.GeneratorParams(model))
        generator.append_tokens([1, 2, 3])
        generator.generate_next_token()
    except RuntimeError as error:  # what onnxruntime_genai raises for everything
        told = " ".join(str(error).split())
        raise StageError(
            "onnx_graph", f"after olive_passes ({named}) ONNX Runtime GenAI does not answer with the graph: {told}"
        ) from error
