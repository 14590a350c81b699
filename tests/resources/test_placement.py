"""A model on a device that does not hold it computes module by module, and the same."""

from __future__ import annotations

import pytest

from resources.perplexity import perplexity
from resources.placement import fits, input_device, module_by_module, placed

GB = 10**9


@pytest.fixture
def model(tiny_llama):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


def test_weights_fit_where_there_is_room_beside_them():
    assert fits(6 * GB, "cuda", 8 * GB)
    assert not fits(7 * GB, "cuda", 8 * GB)
    assert fits(10**15, "cpu")


def test_a_model_that_is_there_stays(model):
    assert placed(model, "cpu") is model and input_device(model) == "cpu"


def test_module_by_module_gives_the_same_and_holds_no_weights_between(model):
    import torch

    samples = [list(range(3, 40)), list(range(50, 90))]
    ids = torch.tensor(samples[:1])
    with torch.inference_mode():
        whole, known = model(ids).logits, perplexity(model, samples)
        moving = module_by_module(model, "cpu")
        assert {parameter.device.type for parameter in moving.parameters()} == {"meta"}
        assert torch.equal(moving(ids).logits, whole)
    assert perplexity(moving, samples) == known


def test_on_a_gpu_without_room_it_is_the_same_as_with_room(model):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    samples = [list(range(3, 40))]
    moving = perplexity(placed(model, "cuda", free=GB), samples)
    from transformers import AutoModelForCausalLM

    whole = placed(AutoModelForCausalLM.from_pretrained(model.config.name_or_path).eval(), "cuda", free=100 * GB)
    assert whole.device.type == "cuda" and perplexity(whole, samples) == pytest.approx(moving, rel=1e-5)
