"""The Olive run config that trains a LoRA adapter on an olive-quantized model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSES = {"OlivePressLora": "resources.olive.passes.lora"}
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class LoraOptions:
    """What is asked of a training: one field each of the experiment's section `lora_adapter`."""

    r: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    max_tokens: int
    checkpoint_steps: int
    seed: int


def lora_run_config(
    awq_model: Path,
    rows: Path,
    checkpoints: Path,
    options: LoraOptions,
    device: str,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Olive's run config: the folder `awq_model` and the JSON lines in `rows` in, a PEFT adapter folder out.

    checkpoints: folder that outlives an interrupted run; a training goes on from what it finds there.
    device: "cpu" trains in float32, which computes alike on every CPU; "cuda" in bfloat16.
    Olive's own accelerator is the CPU whatever the device, because it only decides which passes are offered.
    """
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "workflow_id": "lora_adapter",
        "input_model": {
            "type": "HfModel",
            "model_path": str(awq_model),
            "load_kwargs": {"trust_remote_code": trust_remote_code},
        },
        "systems": {"local": {"type": "LocalSystem", "accelerators": [cpu]}},
        "host": "local",
        "target": "local",
        "passes": {
            "adapter": {
                "type": "OlivePressLora",
                "r": options.r,
                "alpha": options.alpha,
                "lora_dropout": options.dropout,
                "target_modules": sorted(set(options.target_modules)),
                "torch_dtype": "bfloat16" if device == "cuda" else "float32",
                "device": device,
                "rows": str(rows),
                "max_tokens": options.max_tokens,
                "training_args": training_args(checkpoints, options, device),
            }
        },
        "evaluate_input_model": False,
    }


def training_args(checkpoints: Path, options: LoraOptions, device: str) -> dict[str, Any]:
    """The arguments of transformers' Trainer: AdamW, a linear warmup, then a linear fall to zero."""
    return {
        "output_dir": str(checkpoints),
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch_size,
        "train_sampling_strategy": "sequential",  # the pass hands over its rows in the order to train them
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": options.warmup_steps,
        "seed": options.seed,
        "use_cpu": device == "cpu",
        "save_strategy": "steps",
        "save_steps": options.checkpoint_steps,
        "save_total_limit": KEPT_CHECKPOINTS,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
