"""What stands in a graph that the model builder wrote: which options arrived, and whose codes it holds.

The builder ignores an option that it does not know, and quantizes what it takes for float weights, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resources.errors import StageError
from resources.olive.onnx_model import GraphOptions
from resources.olive.projections import bits, projections, quantized_projections
from resources.olive.unfused import unfused_tensors

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from torch import Tensor

STAGE = "onnx_graph"
# Tensor of the awq model → input of its MatMulNBits node.
INPUTS = {"qweight": 1, "scales": 2, "qzeros": 3}


@dataclass(frozen=True)
class Arrived:
    """What a graph holds: its head and embedding, the accuracy levels and bits of its MatMulNBits nodes.

    io_type: the type of activations and LoRA inputs, "float32" or "float16". layers: projections. A graph of float
    layers has neither levels nor bits.
    """

    head: str
    embedding: str
    accuracy_levels: tuple[int, ...]
    bits: tuple[int, ...]
    io_type: str
    layers: int


def read_arrived(graph: ir.Graph) -> Arrived:
    """What arrived in `graph`, which the model builder wrote and nothing was grafted on."""
    nodes = [node for node in graph if node.op_type == "MatMulNBits"]
    layers = [node for _, node in projections(graph)]
    outputs = {value.name: value for value in graph.outputs}
    return Arrived(
        head=_weight_type(graph, "/lm_head/MatMul"),
        embedding=_weight_type(graph, "/model/embed_tokens/Gather"),
        accuracy_levels=tuple(sorted({_integer(node, "accuracy_level") for node in nodes})),
        bits=tuple(sorted({found for node in layers if (found := bits(node))})),
        io_type=str(outputs["logits"].dtype.numpy().name) if outputs["logits"].dtype else "unknown",
        layers=len(layers),
    )


def check_options(arrived: Arrived, options: GraphOptions) -> None:
    """Raise a StageError for an option that did not arrive in the graph."""
    asked = {
        "head": (options.head, arrived.head),
        "accuracy_level": (() if options.precision else (options.accuracy_level,), arrived.accuracy_levels),
        "precision" if options.precision else "provider": (options.io_type, arrived.io_type),
    }
    for name, (wanted, found) in asked.items():
        if wanted != found:
            what = f"the model builder was asked for {name} {getattr(options, name)} and its graph has {found}"
            raise StageError(STAGE, what, "Use the versions in constraints.txt")


def check_codes(graph: ir.Graph, awq_model: Path) -> None:
    """Raise a StageError unless each quantized projection has the codes, scales and zero points of `awq_model`."""
    nodes = dict(quantized_projections(graph))
    compared = 0
    for name, kind, tensor in _quantized_tensors(awq_model):
        if name not in nodes:
            raise StageError(STAGE, f"{name} is quantized in the awq model and is no MatMulNBits in the graph")
        value = nodes[name].inputs[INPUTS[kind]] if len(nodes[name].inputs) > INPUTS[kind] else None
        if value is None or value.const_value is None or not _same(value.const_value.numpy(), tensor):
            raise StageError(STAGE, f"the graph's {kind} of {name} are not those of the awq model")
        compared += kind == "qweight"
    if compared != len(nodes):
        raise StageError(STAGE, f"the graph has {len(nodes)} quantized projections, the awq model {compared}")


def check_weights(graph: ir.Graph, float_model: Path) -> None:
    """Raise a StageError unless the projections have the weights of `float_model`, rounded to the graph's type."""
    nodes = dict(projections(graph))
    compared = 0
    for name, tensor in _float_tensors(float_model):
        value = nodes[name].inputs[1] if name in nodes and nodes[name].op_type == "MatMul" else None
        if value is None or value.const_value is None:
            raise StageError(STAGE, f"{name} is no MatMul with weights in the graph")
        if not _same(value.const_value.numpy(), tensor.T):
            raise StageError(STAGE, f"the graph's weights of {name} are not those of the awq model")
        compared += 1
    if compared != len(nodes):
        raise StageError(STAGE, f"the graph has {len(nodes)} projections, the awq model {compared}")


def _float_tensors(model: Path) -> Iterator[tuple[str, Tensor]]:
    """Projection and weight [outputs, inputs] for all projections, fused ones as their parts."""
    for _, tensors in unfused_tensors(model):
        for name, tensor in tensors.items():
            module, _, kind = name.rpartition(".")
            if kind == "weight" and tensor.dim() == 2 and ".layers." in module:
                yield module[module.index("layers.") :], tensor


def _quantized_tensors(awq_model: Path) -> Iterator[tuple[str, str, Tensor]]:
    """Projection, kind and tensor for all quantized layers, fused ones as their parts."""
    for _, tensors in unfused_tensors(awq_model):
        for name, tensor in tensors.items():
            module, _, kind = name.rpartition(".")
            if kind in INPUTS and ".layers." in module and tensor.numel():
                yield module[module.index("layers.") :], kind, tensor


def _same(found: np.ndarray, tensor: Tensor) -> bool:
    import torch

    there = torch.from_numpy(found.reshape(-1).copy())
    return torch.equal(there, tensor.reshape(-1).to(there.dtype))


def _weight_type(graph: ir.Graph, name: str) -> str:
    """int4, int8 or float, by the node that `name` became: the builder appends how it quantized it."""
    for node in graph:
        if (node.name or "").startswith(name):
            width = _integer(node, "bits")
            return f"int{width}" if width else "float"
    return "none"


def _integer(node: ir.Node, name: str) -> int:
    return node.attributes[name].as_int() if name in node.attributes else 0
