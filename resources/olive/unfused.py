"""The tensors of an olive-quantized checkpoint with fused projections taken apart by rows.

Phi-3 checkpoints hold qkv_proj and gate_up_proj. The model builder of ONNX Runtime GenAI 0.18.0 takes them apart
itself, but slices their zero points as GPTQ packs them and not as Olive does (one row per output), and the model it
writes does not load: "zero_points initializer shape". Olive packs every row by itself, so cutting rows moves whole
bytes and changes no code. `write_unfused` can go when a released builder writes a Phi-3 graph that loads;
tests/resources/olive/test_genai_builder.py has a test that fails then.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import StageError

if TYPE_CHECKING:
    from torch import Tensor

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def fused_rows(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Fused projection → rows (outputs) of each of its parts, from a model's config.json."""
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    inner = config["intermediate_size"]
    return {
        "qkv_proj": (heads * head_size, kv_heads * head_size, kv_heads * head_size),
        "gate_up_proj": (inner, inner),
    }


def has_fused_projections(folder: Path) -> bool:
    """Whether the checkpoint in `folder` holds fused projections."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if any(_projection(name) in FUSED for name in tensors.keys()):  # noqa: SIM118  # not a dict
                return True
    return False


def unfused_tensors(folder: Path) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """File by file: the file and its tensors by name, a fused one replaced by its parts."""
    from safetensors.torch import load_file

    rows = fused_rows(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    for file in sorted(folder.glob("*.safetensors")):
        apart: dict[str, Tensor] = {}
        for name, tensor in load_file(file).items():
            apart |= _apart(name, tensor, rows)
        yield file, apart


def write_unfused(folder: Path, out: Path) -> None:
    """Leave in `out` the checkpoint of `folder` with every fused projection as its parts, codes unchanged."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    for file, tensors in unfused_tensors(folder):
        save_file(tensors, out / file.name, metadata={"format": "pt"})
    for file in folder.iterdir():
        # the index names fused tensors; the builder reads every .safetensors file without it
        if file.is_file() and file.suffix != ".safetensors" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    overrides = config["quantization_config"].get("overrides") or {}
    config["quantization_config"]["overrides"] = _unfused_overrides(overrides) or None
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _projection(name: str) -> str:
    """ "qkv_proj" of "model.layers.0.self_attn.qkv_proj.qweight"."""
    return name.rsplit(".", 2)[-2] if name.count(".") > 1 else ""


def _apart(name: str, tensor: Tensor, rows: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    fused = _projection(name)
    if fused not in FUSED:
        return {name: tensor}
    if tensor.shape[0] != sum(rows[fused]):
        raise StageError("onnx_graph", f"{name} has {tensor.shape[0]} rows and config.json asks for {sum(rows[fused])}")
    pieces = tensor.split(list(rows[fused]))
    head, kind = name.rsplit(".", 2)[0], name.rsplit(".", 1)[1]
    return {f"{head}.{part}.{kind}": piece.contiguous() for part, piece in zip(FUSED[fused], pieces, strict=True)}


def _unfused_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Per-module settings (bits, group size) under the names of the parts."""
    apart: dict[str, Any] = {}
    for module, settings in overrides.items():
        head, _, projection = module.rpartition(".")
        apart |= {f"{head}.{part}": settings for part in FUSED.get(projection, (projection,))}
    return apart
