"""When activations are computed twice."""

from __future__ import annotations

from types import SimpleNamespace

from resources.olive.passes.activation_memory import adapter_size, needs_checkpointing, step_bytes

PHI35 = SimpleNamespace(hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, vocab_size=32064)
LORA = 100_663_296  # rank 64 on all four projections


def test_the_estimate_covers_what_a_model_of_phi35s_shape_took():
    # One H200: 16.8 GB at the highest for batches of up to 1,200 tokens, 7.64 of them weights.
    assert 9.2e9 < step_bytes(PHI35, 1200, LORA, 2) < 1.4 * 9.2e9


def test_it_grows_with_the_tokens_of_a_batch():
    one, two = (step_bytes(PHI35, tokens, 0, 2) for tokens in (1024, 2048))
    assert two == 2 * one


def test_the_size_of_an_adapter_is_that_of_pefts(tiny_llama):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model, targets = AutoModelForCausalLM.from_pretrained(tiny_llama), ["q_proj", "down_proj"]
    found = adapter_size(model, targets, 4)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets))
    assert found == sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)


def test_a_cpu_never_computes_activations_twice(tiny_llama):
    from transformers import AutoModelForCausalLM

    assert not needs_checkpointing(AutoModelForCausalLM.from_pretrained(tiny_llama), 10**12, 0)
