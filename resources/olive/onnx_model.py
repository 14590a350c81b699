"""The Olive run config that builds the ungrafted ONNX Runtime GenAI graph from an olive-quantized model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resources.olive.targets import TARGETS, Provider

PASSES = {"OlivePressGenaiBuilder": "resources.olive.passes.genai_builder"}

Head = Literal["int4", "int8", "float"]

# What the builder makes of the head, and of the embedding where the model ties the two. The layers below it always keep
# the codes of the awq model.
HEAD_OPTIONS: dict[Head, dict[str, str]] = {
    "int4": {"algo_config": "default"},
    "int8": {"algo_config": "rtn_last"},
    "float": {"nodes_to_exclude": "/lm_head/MatMul,/model/embed_tokens/Gather"},
}


@dataclass(frozen=True)
class GraphOptions:
    """What is asked of a graph: the provider it runs on, its head, and MatMulNBits' accuracy level.

    accuracy_level: 1 computes with float32 activations, 4 with int8 activations (three times as fast on a CPU).
    precision: None keeps the codes of the awq model; else its values in float, and the head is float, too.
    """

    provider: Provider
    head: Head
    accuracy_level: Literal[1, 4]
    precision: Literal["fp16", "fp32"] | None = None

    @property
    def io_type(self) -> str:
        """What activations, key-value cache and LoRA inputs are: "float32" or "float16"."""
        if self.precision is not None:
            return {"fp16": "float16", "fp32": "float32"}[self.precision]
        return "float32" if self.provider == "cpu" else "float16"


def builder_options(options: GraphOptions) -> dict[str, str]:
    """The builder's extra options, in its own words; it ignores a name that it does not know without a word."""
    plain = {
        "fuse_qkv": "false",  # one node per projection, as LoRA names them
        "hf_token": "false",  # nothing is fetched
    }
    if options.provider == "cuda":
        plain["enable_cuda_graph"] = "true"  # only genai_config.json says so; resources/olive/cuda_graph.py
    if options.precision is not None:
        return plain
    return plain | {"accuracy_level": str(options.accuracy_level), **HEAD_OPTIONS[options.head]}


def graph_run_config(model: Path, options: GraphOptions, trust_remote_code: bool = False) -> dict[str, Any]:
    """Olive's run config: the folder `model` in, an ONNX Runtime GenAI folder out.

    model: olive-quantized, or its values in float where the options have a precision. The builder's "int4" decides
    only what it quantizes itself, which is the head: quantized layers stay what they are, int4 or int8.

    The accelerator is the CPU whatever the provider, because building a graph runs no kernel of it.
    """
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "workflow_id": "onnx_graph",
        "input_model": {
            "type": "HfModel",
            "model_path": str(model),
            "load_kwargs": {"trust_remote_code": trust_remote_code},
        },
        "systems": {"local": {"type": "LocalSystem", "accelerators": [cpu]}},
        "host": "local",
        "target": "local",
        "passes": {
            "graph": {
                "type": "OlivePressGenaiBuilder",
                "precision": options.precision or "int4",
                "provider": options.provider,
                "options": builder_options(options) | {"hf_remote": str(trust_remote_code).lower()},
            }
        },
        "evaluate_input_model": False,
    }


def passes_run_config(graph: Path, olive_passes: Sequence[Mapping[str, Any]], provider: str) -> dict[str, Any]:
    """Olive's run config: `olive_passes` in order over the ONNX Runtime GenAI folder `graph`, built for `provider`."""
    target = TARGETS[provider]
    accelerator = {"device": target.device, "execution_providers": [target.onnxruntime]}
    others = sorted(str(file) for file in graph.iterdir() if not file.name.startswith("model.onnx"))
    return {
        "workflow_id": "onnx_graph",
        "input_model": {
            "type": "ONNXModel",
            "model_path": str(graph),
            "onnx_file_name": "model.onnx",
            "model_attributes": {"additional_files": others},
        },
        "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "host": "local",
        "target": "local",
        "passes": {f"pass_{number}": dict(one) for number, one in enumerate(olive_passes)},
        "evaluate_input_model": False,
    }
