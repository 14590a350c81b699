"""The Olive run config of a LoRA training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resources.olive.lora_adapter import LoraOptions, lora_run_config

OPTIONS = LoraOptions(
    r=8,
    alpha=16.0,
    dropout=0.1,
    target_modules=("v_proj", "q_proj"),
    steps=24,
    batch_size=8,
    learning_rate=1e-3,
    warmup_steps=2,
    max_tokens=256,
    checkpoint_steps=10,
    seed=7,
)


def run_config(options: LoraOptions = OPTIONS, device: str = "cpu"):
    return lora_run_config(Path("awq"), Path("data/train.jsonl"), Path("scratch"), options, device)


def test_run_config_for_the_cpu():
    assert run_config() == {
        "workflow_id": "lora_adapter",
        "input_model": {"type": "HfModel", "model_path": "awq", "load_kwargs": {"trust_remote_code": False}},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "host": "local",
        "target": "local",
        "passes": {
            "adapter": {
                "type": "OlivePressLora",
                "r": 8,
                "alpha": 16.0,
                "lora_dropout": 0.1,
                "target_modules": ["q_proj", "v_proj"],
                "torch_dtype": "float32",
                "device": "cpu",
                "rows": "data/train.jsonl",
                "max_tokens": 256,
                "training_args": {
                    "output_dir": "scratch",
                    "max_steps": 24,
                    "per_device_train_batch_size": 8,
                    "train_sampling_strategy": "sequential",
                    "learning_rate": 1e-3,
                    "lr_scheduler_type": "linear",
                    "warmup_steps": 2,
                    "seed": 7,
                    "use_cpu": True,
                    "save_strategy": "steps",
                    "save_steps": 10,
                    "save_total_limit": 2,
                    "logging_steps": 1,
                    "logging_nan_inf_filter": False,
                    "disable_tqdm": True,
                    "remove_unused_columns": False,
                },
            }
        },
        "evaluate_input_model": False,
    }


def test_cuda_trains_in_bfloat16():
    adapter = run_config(device="cuda")["passes"]["adapter"]
    assert (adapter["torch_dtype"], adapter["device"]) == ("bfloat16", "cuda")
    assert not adapter["training_args"]["use_cpu"]


def test_the_order_and_repetition_of_target_modules_change_nothing():
    assert run_config(replace(OPTIONS, target_modules=("q_proj", "v_proj", "q_proj"))) == run_config()
