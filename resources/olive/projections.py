"""The projections of a graph that the model builder wrote, under their names in the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resources.errors import StageError

if TYPE_CHECKING:
    import onnx_ir as ir

NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/(MatMulNBits|MatMul\w*)")
BLOCKS = {"attn": "self_attn", "mlp": "mlp"}


def projections(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """The layers' projections in graph order: layers.0.self_attn.q_proj and the like, its MatMulNBits or MatMul.

    A quantizer that comes after the model builder leaves names such as MatMul_Q4.
    """
    for node in graph:
        if node.op_type in ("MatMulNBits", "MatMul") and (found := NODE.fullmatch(node.name or "")):
            layer, block, projection, _ = found.groups()
            yield f"layers.{layer}.{BLOCKS[block]}.{projection}", node


def quantized_projections(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """Those of `projections` that hold codes."""
    return (one for one in projections(graph) if one[1].op_type == "MatMulNBits")


def sizes(node: ir.Node) -> tuple[int, int]:
    """Inputs and outputs of a projection."""
    if node.op_type == "MatMulNBits":
        return node.attributes["K"].as_int(), node.attributes["N"].as_int()
    inputs, outputs = _constant(node, _dequantizer(node) or node, 0 if _dequantizer(node) else 1).shape.numpy()
    return inputs, outputs


def compute_type(node: ir.Node) -> ir.DataType:
    """The type a projection computes in: that of its scales or weights, float32 or float16."""
    if node.op_type == "MatMulNBits":
        return _constant(node, node, 2).dtype
    return _constant(node, _dequantizer(node) or node, 1).dtype


def bits(node: ir.Node) -> int:
    """The bits of a projection's codes; 0 for float weights."""
    if node.op_type == "MatMulNBits":
        return node.attributes["bits"].as_int()
    dequantizer = _dequantizer(node)
    return int(_constant(node, dequantizer, 0).dtype.itemsize * 8) if dequantizer else 0


def _dequantizer(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear that makes the weights of a MatMul from codes."""
    value = node.inputs[1]
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _constant(projection: ir.Node, node: ir.Node, position: int) -> ir.TensorProtocol:
    value = node.inputs[position]
    if value is None or value.const_value is None:
        raise StageError("onnx_model", f"{projection.name} has no weights in the graph")
    return value.const_value
