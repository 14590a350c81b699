"""The quantized projections of a graph that the model builder wrote, under their names in the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

NODE = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMulNBits")
BLOCKS = {"attn": "self_attn", "mlp": "mlp"}


def quantized_projections(graph: ir.Graph) -> Iterator[tuple[str, ir.Node]]:
    """The MatMulNBits nodes of the graph's layers in graph order: layers.0.self_attn.q_proj and the like, node."""
    for node in graph:
        if node.op_type == "MatMulNBits" and (found := NODE.fullmatch(node.name or "")):
            layer, block, projection = found.groups()
            yield f"layers.{layer}.{BLOCKS[block]}.{projection}", node
