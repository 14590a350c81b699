"""The ungrafted ONNX Runtime GenAI folder of an awq model: the slow half of onnx_model, built once per awq model.

Recipe: the model builder of ONNX Runtime GenAI reads Olive's format and writes one MatMulNBits node per projection,
y[n] = sum_k x[k] scale[n, k/g] (code[n, k] - zero[n, k/g]), with the codes, scales and zero points as they are. Where
a float precision is asked for, it reads the dequantized model and writes one MatMul per projection.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from assets.stage import Attempt, Facts, Part
from resources.context import rope_switch
from resources.olive.awq_folder import save_dequantized
from resources.olive.cuda_graph import remove_branches
from resources.olive.graph_checks import check_codes, check_options, check_weights, read_arrived
from resources.olive.graph_passes import run_graph_passes
from resources.olive.onnx_model import PASSES, GraphOptions, graph_run_config
from resources.olive.pass_list import pass_tools
from resources.olive.phases import phase
from resources.olive.workflow import run_workflow
from resources.progress import Progress

GRAPH_FILE = "model.onnx"
ARRIVED_FILE = "graph.json"

# ONNX Runtime GenAI sets a key-value cache of search.max_length tokens aside. The builder writes the context length
# there, for which Phi-3.5-mini would need 103 GB; a caller who needs more than this asks for it.
MAX_LENGTH = 2048

# onnxruntime itself is no tool here: it only rounds the head, and its GPU build is a release behind the CPU build,
# which would keep a graph that was built on one from serving the other.
TOOLS = ("onnxruntime-genai|onnxruntime-genai-cuda", "onnx", "onnx-ir", "olive-ai", "transformers", "torch")


class OnnxGraph(Part):
    """model.onnx and its data, genai_config.json, the tokenizer, and graph.json: the options that arrived."""

    name = "onnx_graph"
    made_from = ("awq_model",)
    ignores: ClassVar = {"awq_model": ("awq_metrics.json",)}
    tools = TOOLS

    def options(self) -> GraphOptions:
        spec = self.experiment.onnx_model
        in_float = spec.precision if spec.precision in ("fp16", "fp32") else None
        return GraphOptions(spec.provider, spec.head, spec.accuracy_level, in_float)

    def passes(self) -> Sequence[Mapping[str, Any]]:
        """The Olive passes that run on the graph."""
        return self.experiment.onnx_model.olive_passes

    def fields(self) -> Mapping[str, Any]:
        return asdict(self.options()) | {"olive_passes": list(self.passes())}

    def own_ingredients(self) -> dict[str, Any]:
        """Its own and the packages that the named passes need."""
        return super().own_ingredients() | {f"tool.{name}": told for name, told in pass_tools(self.passes()).items()}

    def produce(self, attempt: Attempt) -> None:
        """Build the graph; a StageError when an option did not arrive or a code is not the awq model's."""
        trusted, passes = self.experiment.base_model.trust_remote_code, self.passes()
        awq_model, options = attempt.inputs["awq_model"], self.options()
        if not passes:
            build_graph(awq_model, options, attempt.folder, attempt.progress, trusted)
            return
        with tempfile.TemporaryDirectory(prefix=".built-", dir=attempt.folder) as built:
            build_graph(awq_model, options, Path(built), attempt.progress, trusted)
            run_graph_passes(Path(built), passes, options.provider, attempt.folder, attempt.progress)
        write_arrived(attempt.folder, passes)

    def facts(self, folder: Path) -> Facts:
        """Bytes, quantized projections, and the options that arrived."""
        arrived = json.loads((folder / ARRIVED_FILE).read_text(encoding="utf-8"))
        return Facts(
            {"bytes": folder_bytes(folder), "quantized_layers": arrived["layers"]}, texts={"options": describe(arrived)}
        )


class ExactOnnxGraph(OnnxGraph):
    """The same awq model built for exactness: float head, float32 activations. It proves graph and graft."""

    name = "onnx_graph_exact"

    def options(self) -> GraphOptions:
        return GraphOptions("cpu", "float", 1)

    def passes(self) -> Sequence[Mapping[str, Any]]:
        return ()


def build_graph(
    awq_model: Path, options: GraphOptions, folder: Path, progress: Progress, trust_remote_code: bool = False
) -> None:
    """Leave in `folder` the ungrafted ONNX Runtime GenAI folder of the olive-quantized `awq_model`."""
    import onnx_ir as ir

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".float-", dir=folder) as scratch:
        source = awq_model
        if options.precision is not None:
            source = Path(scratch)
            save_dequantized(awq_model, source, trust_remote_code)
        run_workflow(graph_run_config(source, options, trust_remote_code), folder, progress, PASSES)
        model = ir.load(folder / GRAPH_FILE)
        arrived = read_arrived(model.graph)
        check_options(arrived, options)
        with phase("compare every code"):
            if options.precision is None:
                check_codes(model.graph, awq_model)
            else:
                check_weights(model.graph, source)
    if options.provider == "cuda":
        remove_branches(model.graph)
    # the builder stamps the commit of whatever git repository lies around its installation
    model.producer_version = (model.producer_version or "").partition("+")[0]
    ir.save(model, folder / GRAPH_FILE)
    settle_search(folder / "genai_config.json")
    switch = rope_switch(json.loads((awq_model / "config.json").read_text(encoding="utf-8")))
    switched = {} if switch is None else {"rope_switch": switch}
    write_json(folder / ARRIVED_FILE, {"provider": options.provider, **asdict(arrived), **switched})
    held = "codes" if options.precision is None else "dequantized weights"
    progress.log(f"{arrived.layers} projections hold the {held} of the awq model; {describe(asdict(arrived))}")


def write_arrived(folder: Path, olive_passes: Sequence[Mapping[str, Any]]) -> None:
    """Write graph.json again, as the graph is after `olive_passes`."""
    import onnx_ir as ir

    built = json.loads((folder / ARRIVED_FILE).read_text(encoding="utf-8"))
    arrived = asdict(read_arrived(ir.load(folder / GRAPH_FILE).graph))
    write_json(folder / ARRIVED_FILE, built | arrived | {"olive_passes": [one["type"] for one in olive_passes]})


def settle_search(file: Path) -> None:
    """Cap the default length of a generation at MAX_LENGTH tokens; on a CPU, decode on all physical cores.

    ONNX Runtime GenAI takes half of the processors it sees, as if each were half a core; 0 leaves the number to ONNX
    Runtime, which counts the cores.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    config["search"]["max_length"] = min(config["model"]["context_length"], MAX_LENGTH)
    session = config["model"]["decoder"]["session_options"]
    if not session["provider_options"]:
        session["intra_op_num_threads"] = 0
    write_json(file, config)


def describe(arrived: Mapping[str, Any]) -> str:
    """The options that arrived, one line."""
    levels = ", ".join(map(str, arrived["accuracy_levels"]))
    bits = ", ".join(f"int{bits}" for bits in arrived["bits"]) or "float"
    level = f"accuracy level {levels}, " if levels else ""
    passes = ", after " + ", ".join(arrived["olive_passes"]) if arrived.get("olive_passes") else ""
    return (
        f"layers {bits}, head {arrived['head']}, embedding {arrived['embedding']}, "
        f"{level}activations {arrived['io_type']}{passes}"
    )


def folder_bytes(folder: Path) -> int:
    """Size of all files below `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Leave `document` in `file`, indented, ending with a line feed."""
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
