"""Reading olive-quantized folders: the same numbers, and no silent random weights."""

from __future__ import annotations

import shutil

import pytest

from resources.errors import StageError
from resources.olive.awq_folder import load_dequantized
from resources.olive.workflow import run_workflow


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_phi3", "tiny_qwen2"])
def quantized(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    base = request.getfixturevalue(request.param)
    config = {
        "input_model": {"type": "HfModel", "model_path": str(base)},
        "passes": {"rtn": {"type": "Rtn", "group_size": 32}},
    }
    run_workflow(config, folder)
    return folder


def test_gives_the_logits_of_the_quantized_model(quantized):
    import torch
    from olive.common.hf.utils import load_model_from_task

    ids = torch.arange(40)[None]
    original = load_model_from_task("text-generation", str(quantized))
    model = load_dequantized(quantized)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=1e-5, atol=1e-5)
    assert not [name for name, module in model.named_modules() if type(module).__name__.startswith("Quant")]


def test_the_model_can_be_trained_and_saved_as_a_float_model(quantized, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    model = load_dequantized(quantized)
    assert not getattr(model, "is_quantized", False) and not hasattr(model.config, "quantization_config")
    model.save_pretrained(tmp_path)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(saved(ids).logits, model(ids).logits)


def test_a_missing_weight_is_an_error_and_not_random(quantized, tmp_path):
    from safetensors.torch import load_file, save_file

    damaged = shutil.copytree(quantized, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    name = sorted(weights)[2]
    del weights[name]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=name.replace(".", r"\.")):
        load_dequantized(damaged)


def test_a_weight_of_another_shape_is_an_error(quantized, tmp_path):
    from safetensors.torch import load_file, save_file

    damaged = shutil.copytree(quantized, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:32].clone()
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"do not fit"):
        load_dequantized(damaged)


def test_an_unquantized_folder_is_an_error(tiny_llama, tmp_path):
    with pytest.raises(StageError, match="no quantization; accepted: olive"):
        load_dequantized(tiny_llama)
    with pytest.raises(StageError, match="no quantization; accepted: olive"):
        load_dequantized(tmp_path)


def test_a_model_that_a_device_does_not_hold_stays_on_the_cpu_and_computes_the_same(quantized):
    """Sizes are known before anything is unpacked, and an adapter goes along."""
    import torch

    from resources.olive import awq_folder
    from resources.placement import module_by_module

    packed = awq_folder._load(quantized, "float32", False)
    size = awq_folder._dequantized_bytes(packed)
    model = load_dequantized(quantized, whole=False)
    assert size == pytest.approx(sum(parameter.nbytes for parameter in model.parameters()), rel=0.01)  # no biases
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        whole = model(ids).logits
        assert torch.equal(module_by_module(model, "cpu")(ids).logits, whole)
