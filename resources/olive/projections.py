"""The projections of a graph that the model builder wrote, under their names in the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resources.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/(MatMulNBits|MatMul)")
BLOCKS = {"attn": "self_attn", "mlp": "mlp"}


def projections(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """The layers' projections in graph order: layers.0.self_attn.q_proj and the like, its MatMulNBits or MatMul."""
    for node in graph:
        if (found := NODE.fullmatch(node.name or "")) and node.op_type == found[4]:
            layer, block, projection, _ = found.groups()
            yield f"layers.{layer}.{BLOCKS[block]}.{projection}", node


def quantized_projections(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """Those of `projections` that hold codes."""
    return (one for one in projections(graph) if one[1].op_type == "MatMulNBits")


def sizes(node: ir.Node) -> tuple[int, int]:
    """Inputs and outputs of a projection."""
    if node.op_type == "MatMulNBits":
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    inputs, outputs = weight(node).shape.numpy()
    return inputs, outputs


def compute_type(node: ir.Node) -> ir.DataType:
    """The type a projection computes in: that of its scales or weights, float32 or float16."""
    return weight(node).dtype


def weight(node: ir.Node) -> ir.TensorProtocol:
    """The scales of a quantized projection, the weights [inputs, outputs] of another."""
    value = node.inputs[2 if node.op_type == "MatMulNBits" else 1]
    if value is None or value.const_value is None:
        raise StageError("onnx_model", f"{node.name} has no weights in the graph")
    return value.const_value
