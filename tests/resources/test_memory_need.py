"""Estimates of memory: those that were measured, and that what an error tells to lower does lower them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from resources.memory_need import (
    AWQ_HIDDEN_SHARE,
    AwqWork,
    LoraWork,
    ModelShape,
    adapter_parameters,
    awq_gpu_need,
    awq_host_need,
    float32_need,
    largest_that_fits,
    lora_gpu_need,
    lora_host_need,
    module_gpu_need,
)

GB = 1_000_000_000
PHI35 = {
    "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
CALIBRATION = AwqWork(samples=128, tokens=512, at_once=16, measure_samples=0)
LAB = LoraWork(r=64, target_modules=FUSED, batch_size=8, tokens=256)


@pytest.fixture
def phi() -> ModelShape:
    shape = ModelShape.of(PHI35)
    assert shape is not None
    return shape


def test_the_sizes_of_a_published_model(phi):
    assert phi.parameters == pytest.approx(3.82e9, rel=0.002)
    assert phi.dtype_bytes * phi.parameters == pytest.approx(7.64 * GB, rel=0.002)


@pytest.mark.parametrize("model", ["tiny_llama", "tiny_phi3", "tiny_qwen2"])
def test_the_sizes_of_a_model_and_its_adapter_are_those_that_pytorch_counts(model, request):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(model)
    shape = ModelShape.of(json.loads((folder / "config.json").read_text()))
    assert shape is not None
    counted = AutoModelForCausalLM.from_pretrained(folder)
    assert shape.parameters == pytest.approx(sum(weight.numel() for weight in counted.parameters()), rel=0.02)
    targets = FUSED if model == "tiny_phi3" else SEVEN
    adapted = get_peft_model(counted, LoraConfig(r=4, target_modules=list(targets)))
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert adapter_parameters(shape, LoraWork(4, targets, 1, 16)) == trained


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"n_embd": 768, "n_layer": 12},
        PHI35 | {"num_local_experts": 16},
        PHI35 | {"hidden_size": [1, 2]},
    ],
)
def test_of_a_model_that_is_built_otherwise_nothing_is_said(config):
    assert ModelShape.of(config) is None


def test_awq_needs_what_was_measured(phi):
    """PyTorch had reserved 5.3 GB of an H200."""
    assert awq_gpu_need(phi, CALIBRATION, 150 * GB).bytes == pytest.approx(5.3 * GB, rel=0.1)


def test_awq_keeps_hidden_states_in_the_machine_where_the_gpu_is_small(phi):
    """As the pass itself decides it."""
    from resources.olive.passes.awq import HIDDEN_SHARE

    assert AWQ_HIDDEN_SHARE == HIDDEN_SHARE
    large, small = awq_gpu_need(phi, CALIBRATION, 8 * GB), awq_gpu_need(phi, CALIBRATION, 3 * GB)
    assert large.parts["hidden states"] > 7 * small.parts["hidden states"]


def test_measuring_needs_no_more_than_quantizing(phi):
    """Where the whole base model does not fit, one module of it is on the GPU at a time."""
    measured, plain = (awq_gpu_need(phi, replace(CALIBRATION, measure_samples=n), 8 * GB) for n in (4, 0))
    assert measured == plain and measured.bytes < 8 * GB
    huge = replace(phi, vocabulary=400_000)
    assert "logits" in awq_gpu_need(huge, AwqWork(1, 512, 1, 4), 8 * GB).parts


def test_comparing_with_the_graph_needs_one_module_at_a_time(phi):
    assert module_gpu_need(phi).bytes == 4 * 32_064 * 3072


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"tokens": 128}, {"r": 32}])
@pytest.mark.parametrize("needed", [lora_gpu_need, lora_host_need])
def test_lora_needs_less_with_less(phi, change, needed):
    assert needed(phi, replace(LAB, **change)).bytes < needed(phi, LAB).bytes


def test_lora_needs_its_weights_and_more(phi):
    assert 7.64 * GB < lora_gpu_need(phi, LAB).bytes < 16 * GB
    assert lora_host_need(phi, LAB).bytes > 4 * phi.parameters == float32_need(phi).bytes
    assert awq_host_need(phi, CALIBRATION).bytes > 7.64 * GB


def test_the_largest_value_that_fits(phi):
    def need(batch_size):
        return lora_gpu_need(phi, replace(LAB, batch_size=batch_size))

    free = need(3).bytes
    assert largest_that_fits(8, 1, need, free) == 2
    assert largest_that_fits(8, 1, need, need(1).bytes - 1) is None
    assert largest_that_fits(1, 1, need, 0) is None
