"""Grafts LoRA (arXiv 2106.09685) onto an ONNX graph: y = MatMulNBits(x) + (x A) B, with A and B as graph inputs.

A graph of float layers has a MatMul in its place.

A [K, "lora_r"] and B ["lora_r", N] have defaults of rank 0, whose product adds nothing, so that the base answers
without an adapter; an .onnx_adapter file holds A and B of one adapter, B already times alpha / r. The graph depends on
which projections the adapter touches and not on its weights or its rank: adapters that touch the same projections
share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import StageError
from resources.olive.peft_adapter import LoraPair, read_adapter
from resources.olive.projections import compute_type, projections, sizes
from resources.olive.unfused import FUSED
from resources.store.trees import link_or_copy

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

STAGE = "onnx_model"
GRAPH_FILE = "model.onnx"


@dataclass(frozen=True)
class Graft:
    """Where one LoRA pair goes: the node of a projection, and which rows of the pair's B are its own.

    module: what PEFT adapts (layers.0.self_attn.qkv_proj). part: what the node computes (layers.0.self_attn.k_proj).
    """

    node: ir.Node
    module: str
    part: str
    rows: slice

    @property
    def a_name(self) -> str:
        return f"model.{self.module}.lora_A.weight"

    @property
    def b_name(self) -> str:
        return f"model.{self.part}.lora_B.weight"


def graft_adapter(graph_folder: Path, adapter_folder: Path, out: Path, adapter_name: str) -> list[str]:
    """Leave in `out` the graph of `graph_folder` with LoRA inputs where the adapter in `adapter_folder` has weights.

    Beside model.onnx come adapters/<adapter_name>.onnx_adapter and all other files of `graph_folder`, as hard links
    where the file system allows. Returns the names of the grafted projections, in graph order. A StageError says which
    part of the adapter does not fit the graph.
    """
    import onnx_ir as ir

    pairs = read_adapter(adapter_folder)
    model = ir.load(graph_folder / GRAPH_FILE)
    grafts = plan_grafts(model.graph, pairs)
    parameters = adapter_parameters(grafts, pairs)
    _graft(model.graph, grafts)
    out.mkdir(parents=True, exist_ok=True)
    ir.save(model, out / GRAPH_FILE)
    for file in sorted(graph_folder.iterdir()):
        if file.name != GRAPH_FILE:
            link_or_copy(file, out / file.name)
    write_adapter(parameters, out / "adapters" / f"{adapter_name}.onnx_adapter")
    return [graft.part for graft in grafts]


def plan_grafts(graph: ir.Graph, pairs: Mapping[str, LoraPair]) -> list[Graft]:
    """Where each of `pairs` goes, in graph order; a StageError when one finds no place or does not fit."""
    nodes = dict(projections(graph))
    grafts = [graft for module, pair in pairs.items() for graft in _grafts_of(module, pair, nodes)]
    order = {part: position for position, part in enumerate(nodes)}
    return sorted(grafts, key=lambda graft: order[graft.part])


def adapter_parameters(grafts: list[Graft], pairs: Mapping[str, LoraPair]) -> dict[str, np.ndarray]:
    """Graph input → value, A and B transposed, in the type the node computes in; A of a fused projection comes once."""
    import numpy as np

    parameters = {}
    for graft in grafts:
        pair, dtype = pairs[graft.module], compute_type(graft.node).numpy()
        parameters[graft.a_name] = np.ascontiguousarray(pair.a.T.astype(dtype))
        parameters[graft.b_name] = np.ascontiguousarray(pair.b[graft.rows].T.astype(dtype))
    return parameters


def write_adapter(parameters: Mapping[str, np.ndarray], file: Path) -> None:
    """Leave in `file` an .onnx_adapter with `parameters`, which ONNX Runtime and ONNX Runtime GenAI load."""
    import onnxruntime

    file.parent.mkdir(parents=True, exist_ok=True)
    adapter: Any = onnxruntime.AdapterFormat()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(parameters[name]) for name in sorted(parameters)}
    adapter.set_parameters(values)
    adapter.export_adapter(str(file))


def _grafts_of(module: str, pair: LoraPair, nodes: Mapping[str, ir.Node]) -> Iterator[Graft]:
    head, _, projection = module.rpartition(".")
    start = 0
    for name in FUSED.get(projection, (projection,)):
        part = f"{head}.{name}"
        if part not in nodes:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in nodes}))
            raise StageError(STAGE, f"the adapter touches {module}, and the graph has {known or 'no projections'} only")
        inputs, outputs = sizes(nodes[part])
        if pair.a.shape[1] != inputs:
            raise StageError(STAGE, f"{module}: the adapter takes {pair.a.shape[1]} inputs, the graph {inputs}")
        yield Graft(nodes[part], module, part, slice(start, start + outputs))
        start += outputs
    if pair.b.shape[0] != start:
        raise StageError(STAGE, f"{module}: the adapter gives {pair.b.shape[0]} outputs, the graph {start}")


def _graft(graph: ir.Graph, grafts: list[Graft]) -> None:
    shrunk: dict[str, ir.Value] = {}  # x A, which the parts of a fused projection share
    for graft in grafts:
        if graft.a_name not in shrunk:
            shrunk[graft.a_name] = _add_shrink(graph, graft)
        _add_expand(graph, graft, shrunk[graft.a_name])


def _add_shrink(graph: ir.Graph, graft: Graft) -> ir.Value:
    """x A, [batch, sequence, lora_r]."""
    import onnx_ir as ir

    a = _add_input(graph, graft, graft.a_name, (sizes(graft.node)[0], "lora_r"))
    name = f"{_place(graft)}/lora_A"
    node = ir.node("MatMul", [graft.node.inputs[0], a], name=f"{name}/MatMul")
    node.outputs[0].name = f"{name}/output_0"
    graph.insert_before(graft.node, node)
    return node.outputs[0]


def _add_expand(graph: ir.Graph, graft: Graft, shrunk: ir.Value) -> None:
    """MatMulNBits(x) + (x A) B in place of MatMulNBits(x)."""
    import onnx_ir as ir

    place, base = _place(graft), graft.node.outputs[0]
    b = _add_input(graph, graft, graft.b_name, ("lora_r", sizes(graft.node)[1]))
    expand = ir.node("MatMul", [shrunk, b], name=f"{place}/lora_B/MatMul")
    expand.outputs[0].name = f"{place}/lora_B/output_0"
    total = ir.node("Add", [base, expand.outputs[0]], name=f"{place}/lora/Add")
    total.outputs[0].name = f"{place}/lora/output_0"
    total.outputs[0].type, total.outputs[0].shape = base.type, base.shape
    ir.convenience.replace_all_uses_with(base, total.outputs[0])
    total.replace_input_with(0, base)
    graph.insert_after(graft.node, [expand, total])


def _add_input(graph: ir.Graph, graft: Graft, name: str, shape: tuple[int | str, int | str]) -> ir.Value:
    """A graph input that may be left out: its default has rank 0."""
    import numpy as np
    import onnx_ir as ir

    dtype = compute_type(graft.node)
    empty = np.zeros([0 if isinstance(size, str) else size for size in shape], dtype.numpy())
    value = ir.Value(
        name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=ir.tensor(empty, name=name)
    )
    graph.inputs.append(value)
    graph.register_initializer(value)
    return value


def _place(graft: Graft) -> str:
    return (graft.node.name or "").removesuffix(f"/{graft.node.op_type}")
