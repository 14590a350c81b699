"""The Olive run config that builds the ungrafted ONNX Runtime GenAI graph from an olive-quantized model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    """

    provider: Literal["cpu", "cuda"]
    head: Head
    accuracy_level: Literal[1, 4]


def builder_options(options: GraphOptions) -> dict[str, str]:
    """The builder's extra options, in its own words; it ignores a name that it does not know without a word."""
    return {
        "fuse_qkv": "false",  # one MatMulNBits per projection, as LoRA names them
        "hf_token": "false",  # nothing is fetched
        "accuracy_level": str(options.accuracy_level),
        **HEAD_OPTIONS[options.head],
    }


def graph_run_config(awq_model: Path, options: GraphOptions, trust_remote_code: bool = False) -> dict[str, Any]:
    """Olive's run config: the folder `awq_model` in, an ONNX Runtime GenAI folder out.

    The accelerator is the CPU whatever the provider, because building a graph runs no kernel of it.
    """
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "workflow_id": "onnx_graph",
        "input_model": {
            "type": "HfModel",
            "model_path": str(awq_model),
            "load_kwargs": {"trust_remote_code": trust_remote_code},
        },
        "systems": {"local": {"type": "LocalSystem", "accelerators": [cpu]}},
        "host": "local",
        "target": "local",
        "passes": {
            "graph": {
                "type": "OlivePressGenaiBuilder",
                "precision": "int4",
                "provider": options.provider,
                "options": builder_options(options) | {"hf_remote": str(trust_remote_code).lower()},
            }
        },
        "evaluate_input_model": False,
    }
