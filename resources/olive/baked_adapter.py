"""Graphs of one purpose each beside the grafted one, for CUDA: one with an adapter's weights, one for the base alone.

ONNX Runtime GenAI keeps adapters in the host's memory and copies an active one to the GPU for every token: at
Phi-3.5-mini's size with rank 64, 200 MB each time. Weights of the graph lie on the GPU once. LoRA inputs of rank 0
take time as well, a kernel each. The base's weights stay in the one file that all graphs read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import StageError
from resources.store.trees import link_or_copy

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 4096  # of a tensor in a data file, so that it can be mapped into memory
GRAPH_FILE = "model.onnx"
BASE_GRAPH = "base.onnx"


def baked_graph(adapter: str | None) -> str:
    """The file name of the graph that `adapter` is baked into; for None of the one that has no LoRA inputs."""
    return BASE_GRAPH if adapter is None else f"model-{adapter}.onnx"


def bake_graphs(graph: Path, folder: Path, adapter: str) -> None:
    """Leave both in `folder`, the grafted GenAI folder that was made of the ungrafted one in `graph`."""
    link_or_copy(graph / GRAPH_FILE, folder / BASE_GRAPH)
    bake_adapter(folder, adapter)


def bake_adapter(folder: Path, adapter: str) -> None:
    """Leave model-ADAPTER.onnx and its .data in the grafted GenAI folder `folder`, made of adapters/ADAPTER.

    A parameter of the adapter that the graph does not take, and a LoRA input without one, is a StageError.
    """
    import onnx_ir as ir

    parameters = _read_adapter(folder / "adapters" / f"{adapter}.onnx_adapter")
    model = ir.load(folder / GRAPH_FILE)
    inputs = {str(value.name): value for value in model.graph.inputs if ".lora_" in str(value.name)}
    if inputs.keys() != parameters.keys():
        different = sorted(inputs.keys() ^ parameters.keys())
        raise StageError("onnx_model", f"graph and adapter {adapter} do not have the same LoRA inputs: {different[0]}")
    data = folder / f"{baked_graph(adapter)}.data"
    places = _write(parameters, data)
    for name, value in inputs.items():
        model.graph.inputs.remove(value)
        array = parameters[name]
        shape, dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        weight = ir.ExternalTensor(
            data.name, places[name], array.nbytes, dtype, shape=shape, name=name, base_dir=folder
        )
        value.const_value, value.shape = weight, shape
    ir.save(model, folder / baked_graph(adapter))


def _read_adapter(file: Path) -> dict[str, np.ndarray]:
    import onnxruntime

    adapters: Any = onnxruntime.AdapterFormat  # takes a str, and says a path
    read = adapters.read_adapter(str(file))
    values = sorted(read.get_parameters().items())
    return {name: value.numpy().copy() for name, value in values}  # the arrays lie in `read` and do not keep it alive


def _write(parameters: Mapping[str, np.ndarray], file: Path) -> dict[str, int]:
    """Name → where its values begin in `file`."""
    places = {}
    with file.open("wb") as out:
        for name, array in parameters.items():
            out.write(bytes(-out.tell() % ALIGNMENT))
            places[name] = out.tell()
            out.write(array.tobytes())
    return places
