"""Makes a graph for CUDA fit to be captured as a CUDA graph, which replays a token's kernels without launching them.

ONNX Runtime captures no graph with control flow, and the model builder chooses between the two rotary tables of
Phi-3's longrope by an If over the shape of the attention mask. Here a Where over the mask's sum chooses, on the GPU.
The shape would be wrong, too: a captured graph's mask has the length of the whole key-value cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resources.errors import StageError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

PLACE = "/model/rope_caches_subgraph"
MASK_SUM = "/model/attn_mask_reformat/attn_mask_subgraph/ReduceSum"


def remove_branches(graph: ir.Graph) -> int:
    """Put a Where in the place of each output of longrope's If; the number of Ifs that were there, 0 or 1.

    Control flow of any other kind is a StageError, because the graph could not be captured.
    """
    branches = [node for node in graph if node.op_type in ("If", "Loop", "Scan")]
    for node in branches:
        if node.op_type != "If" or not (node.name or "").startswith(PLACE):
            raise StageError(
                "onnx_graph", f"{node.name} is control flow ({node.op_type}), which CUDA graphs cannot have"
            )
        _select(graph, node)
    return len(branches)


def _select(graph: ir.Graph, branch: ir.Node) -> None:
    import onnx_ir as ir

    compared, sums = branch.inputs[0].producer(), _mask_sum(graph)  # pyright: ignore[reportOptionalMemberAccess]
    assert compared is not None
    longest = ir.node("ReduceMax", [sums], attributes={"keepdims": 0}, name=f"{PLACE}/ReduceMax")
    is_long = ir.node("Greater", [longest.outputs[0], compared.inputs[1]], name=f"{PLACE}/IsLong")
    for node, output in ((longest, "ReduceMax"), (is_long, "IsLong")):
        node.outputs[0].name = f"{PLACE}/{output}/output_0"
    added = [longest, is_long]
    tables = zip(_tables(branch, "then_branch"), _tables(branch, "else_branch"), strict=True)
    for output, (long, short) in zip(list(branch.outputs), tables, strict=True):
        name = str(output.name)
        choices = [_table(graph, f"{name}_long", long), _table(graph, f"{name}_short", _padded(short, len(long)))]
        chosen = ir.node("Where", [is_long.outputs[0], *choices], name=f"{PLACE}/{name}/Where")
        chosen.outputs[0].type, chosen.outputs[0].shape = choices[0].type, choices[0].shape
        ir.convenience.replace_all_uses_with(output, chosen.outputs[0])
        output.name, chosen.outputs[0].name = f"{name}_branched", name
        added.append(chosen)
    graph.insert_before(branch, added)
    graph.remove([branch, compared], safe=True)


def _mask_sum(graph: ir.Graph) -> ir.Value:
    """The tokens of each sequence so far, [batch], int64."""
    for node in graph:
        if node.name == MASK_SUM:
            return node.outputs[0]
    raise StageError("onnx_graph", f"the graph has no {MASK_SUM}", "Use the versions in constraints.txt")


def _tables(branch: ir.Node, attribute: str) -> list[np.ndarray]:
    return [node.attributes["value"].as_tensor().numpy() for node in branch.attributes[attribute].as_graph()]


def _padded(table: np.ndarray, rows: int) -> np.ndarray:
    """`table` with rows of zeros, which no position that it serves reads."""
    import numpy as np

    return np.concatenate([table, np.zeros((rows - len(table), table.shape[1]), table.dtype)])


def _table(graph: ir.Graph, name: str, rows: np.ndarray) -> ir.Value:
    import onnx_ir as ir

    tensor = ir.tensor(rows, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(rows.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
