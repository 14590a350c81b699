"""The run config of the AWQ workflow, and the group sizes that a base model allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources.errors import ConfigurationError
from resources.olive.awq_model import accepted_group_sizes, awq_run_config, batch_size, check_group_size
from resources.olive.unhashed import unhashed

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3}


def test_run_config():
    config = awq_run_config(
        Path("base"), Path("samples.json"), bits=4, group_size=32, symmetric=False, ratios=20, clip=True, device="cuda"
    )
    assert config == {
        "workflow_id": "awq_model",
        "input_model": {
            "type": "HfModel",
            "model_path": "base",
            "task": "text-generation",
            "load_kwargs": {"trust_remote_code": False},
        },
        "data_configs": [
            {
                "name": "calibration",
                "load_dataset_config": {"type": "olive_press_token_samples", "file": "samples.json"},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"batch_size": 1},
            }
        ],
        "passes": {
            "awq": {
                "type": "OlivePressAwq",
                "bits": 4,
                "group_size": 32,
                "sym": False,
                "ratios": 20,
                "clip": True,
                "device": "cuda",
                "data_config": "calibration",
            }
        },
    }


def test_an_unhashed_run_differs_in_how_the_base_model_is_named():
    plain = awq_run_config(
        Path("base"), Path("samples.json"), bits=4, group_size=32, symmetric=False, ratios=20, clip=True
    )
    changed = unhashed(plain)
    named = {"type": "OlivePressHfFolder", "folder": "base"}
    settings = {"task": "text-generation", "load_kwargs": {"trust_remote_code": False}}
    assert changed == plain | {"input_model": named | settings}
    assert plain["input_model"]["model_path"] == "base"


def test_a_batch_is_one_sample_on_the_cpu_and_many_on_a_gpu():
    assert (batch_size("cpu", 512), batch_size("cuda", 512), batch_size("cuda", 100_000)) == (1, 16, 1)


@pytest.mark.parametrize(
    ("config", "accepted"),
    [
        (SMOLLM2, (16, 32, 64)),
        ({"hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 32}, (16, 32, 64, 128, 256)),
        ({"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 6, "head_dim": 80}, (16, 32)),
        ({"hidden_size": 1000, "intermediate_size": 4000, "num_attention_heads": 10}, ()),
        ({"n_embd": 768}, (16, 32, 64, 128, 256)),
    ],
)
def test_accepted_group_sizes_divide_every_layer(config, accepted):
    assert accepted_group_sizes(config) == accepted


def test_a_group_size_that_does_not_fit_names_key_found_and_accepted():
    message = r"awq_model\.group_size: found 128, .*hidden size 576.*; accepted: 16, 32, 64"
    with pytest.raises(ConfigurationError, match=message):
        check_group_size(SMOLLM2, 128)
    check_group_size(SMOLLM2, 64)
