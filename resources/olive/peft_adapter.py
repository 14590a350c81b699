"""Reads a LoRA adapter as PEFT saves it, and refuses the variants whose formula is another one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import StageError

if TYPE_CHECKING:
    import numpy as np

WEIGHT = re.compile(r"(?:.*\.)?(layers\.\d+\.\w+\.\w+)\.lora_([AB])\.weight")

# Settings of PEFT under which a projection computes something else than W x + scale B A x.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "fan_in_fan_out": (None, False),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "alora_invocation_tokens": (None,),
    "alpha_pattern": (None, {}),
    "rank_pattern": (None, {}),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
}


@dataclass(frozen=True)
class LoraPair:
    """What LoRA adds to one projection: b @ a, with a [r, inputs] and b [outputs, r], float32, b times the scale."""

    a: np.ndarray
    b: np.ndarray


def read_adapter(folder: Path) -> dict[str, LoraPair]:
    """Projection (layers.0.self_attn.q_proj) → its pair, sorted; a StageError for what is not plain LoRA on a layer."""
    from safetensors.torch import load_file

    scale = _scale(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")))
    halves: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        found = WEIGHT.fullmatch(name)
        if found is None:
            raise StageError("onnx_model", f"the adapter has a weight {name}; accepted: lora_A and lora_B of layers")
        halves.setdefault(found[1], {})[found[2]] = tensor.float().numpy()
    odd = sorted(module for module, half in halves.items() if len(half) != 2)
    if odd or not halves:
        raise StageError("onnx_model", f"the adapter has no whole pair for {', '.join(odd) or 'any projection'}")
    return {module: LoraPair(half["A"], half["B"] * scale) for module, half in sorted(halves.items())}


def _scale(config: Mapping[str, Any]) -> float:
    for setting, plain in PLAIN.items():
        if config.get(setting) not in plain:
            accepted = " or ".join(map(repr, plain))
            found = f"{setting} {config.get(setting)!r} in adapter_config.json"
            raise StageError("onnx_model", f"the adapter has {found}; accepted: {accepted}")
    rank = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
    return config["lora_alpha"] / rank
