"""The Olive run config that makes an AWQ model, and the group sizes that a base model allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError

TOKENS_AT_ONCE = {"cpu": 512, "cuda": 8192}
GROUP_SIZES = (16, 32, 64, 128, 256)
CALIBRATED = ("autoclip", "gptq", "sparsegpt")  # without samples they would download a data set
PASSES = {"OlivePressAwq": "resources.olive.passes.awq"}


def awq_run_config(
    base_model: Path,
    samples_file: Path,
    *,
    bits: int,
    group_size: int,
    symmetric: bool,
    ratios: int,
    clip: bool,
    device: str = "cpu",
    batch_size: int = 1,
    trust_remote_code: bool = False,
    olive_passes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Olive's run config: one AWQ pass, or `olive_passes` in order, over the Hugging Face folder `base_model`.

    samples_file: JSON list of equally long lists of token ids to calibrate on, `batch_size` of them at once.
    olive_passes: OlivePressAwq in it stands for the AWQ pass with the parameters that are given here.
    """
    awq = {
        "type": "OlivePressAwq",
        "bits": bits,
        "group_size": group_size,
        "sym": symmetric,
        "ratios": ratios,
        "clip": clip,
        "device": device,
        "data_config": "calibration",
    }
    return {
        "workflow_id": "awq_model",
        "input_model": {
            "type": "HfModel",
            "model_path": str(base_model),
            "task": "text-generation",
            "load_kwargs": {"trust_remote_code": trust_remote_code},
        },
        "data_configs": [calibration_data(samples_file, batch_size)],
        "passes": numbered([awq if is_ours(one) else calibrated(one) for one in olive_passes] or [awq]),
    }


def is_ours(olive_pass: Mapping[str, Any]) -> bool:
    """Whether a pass of a list stands for the AWQ pass of this project."""
    return olive_pass["type"].lower() == "olivepressawq"


def calibrated(olive_pass: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pass with the calibration samples, where it takes some and would download others."""
    wanted = olive_pass["type"].lower() in CALIBRATED and olive_pass.get("data_config") is None
    return {**olive_pass, "data_config": "calibration"} if wanted else olive_pass


def numbered(olive_passes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Olive's `passes`: a name each, in order."""
    if len(olive_passes) == 1:
        return {"awq" if is_ours(olive_passes[0]) else "pass": dict(olive_passes[0])}
    return {f"pass_{number}": dict(one) for number, one in enumerate(olive_passes)}


def calibration_data(samples_file: Path, batch_size: int = 1) -> dict[str, Any]:
    """Olive's data config "calibration" that reads `samples_file`."""
    return {
        "name": "calibration",
        "load_dataset_config": {"type": "olive_press_token_samples", "file": str(samples_file)},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
        "dataloader_config": {"batch_size": batch_size},
    }


def batch_size(device: str, tokens: int) -> int:
    """How many samples of `tokens` tokens go through a layer at once on `device`, "cpu" or "cuda"."""
    return max(1, TOKENS_AT_ONCE[device] // tokens)


def accepted_group_sizes(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The group sizes that divide the input columns of every linear layer of a model with this config.json."""
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    head_size = config.get("head_dim") or (hidden // heads if hidden and heads else None)
    attention = heads * head_size if heads and head_size else None
    columns = [size for size in (hidden, config.get("intermediate_size"), attention) if size]
    return tuple(size for size in GROUP_SIZES if all(column % size == 0 for column in columns))


def check_group_size(config: Mapping[str, Any], group_size: int) -> None:
    """Raise a ConfigurationError where `group_size` does not divide the layers of a model with this config.json."""
    accepted = accepted_group_sizes(config)
    if group_size not in accepted:
        sizes = f"hidden size {config.get('hidden_size')}, intermediate size {config.get('intermediate_size')}"
        raise ConfigurationError(
            "awq_model.group_size",
            f"{group_size}, which does not divide the layers of the base model ({sizes})",
            ", ".join(map(str, accepted)) or "no group size; this base model cannot be quantized in groups",
        )
