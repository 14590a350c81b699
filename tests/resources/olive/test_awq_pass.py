"""AWQ as an Olive pass: folds change nothing by themselves, and what they make possible loses less."""

from __future__ import annotations

import json
import random

import pytest

from resources.calibration_text import calibration_part, measuring_part, read, token_samples
from resources.olive.awq_folder import load_dequantized
from resources.olive.awq_model import PASSES, awq_run_config
from resources.olive.phases import timed_phases
from resources.olive.unhashed import unhashed
from resources.olive.workflow import run_workflow
from resources.perplexity import perplexity
from resources.progress import RecordedProgress

SIZES = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = SIZES | {"intermediate_size": 128, "num_key_value_heads": 2, "max_position_embeddings": 128}
EVERY_FOLD = {"attention inputs", "attention output", "mlp inputs", "mlp output"}
# Architecture → its configuration, and the folds that its decoder layers allow.
ARCHITECTURES = {
    "llama": (WIDE, EVERY_FOLD),
    "mistral": (WIDE, EVERY_FOLD),
    "qwen2": (WIDE, EVERY_FOLD),
    "qwen3": (WIDE | {"head_dim": 16}, EVERY_FOLD),
    "phi3": (WIDE | {"pad_token_id": 0}, EVERY_FOLD),
    "gemma": (WIDE | {"head_dim": 16}, EVERY_FOLD),
    "gemma2": (WIDE | {"head_dim": 16}, EVERY_FOLD),
    "olmo2": (WIDE, {"attention output", "mlp output"}),
    "opt": (SIZES | {"ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 128}, EVERY_FOLD),
    "bloom": ({"vocab_size": 128, "hidden_size": 64, "n_layer": 2, "n_head": 4}, {"attention inputs", "mlp inputs"}),
}


def build(architecture, config):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **config)).eval()
    for name, parameter in model.named_parameters():
        std = 0.2 if parameter.dim() == 2 else 0.3
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter) * std) if "embed" not in name else parameter.normal_()
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_folds_of_an_architecture_leave_its_logits_unchanged(architecture):
    import torch
    from olive.common.hf.wrapper import ModelWrapper

    from resources.olive.passes.awq_fold import possible_folds, working_folds

    config, expected = ARCHITECTURES[architecture]
    model = build(architecture, config)
    wrapper = ModelWrapper.from_model(model)
    ids = torch.randint(2, 128, (2, 24), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    calls = {}
    for layer in wrapper.get_layer_wrappers():
        keep = lambda module, arguments, keywords: calls.update({module: (arguments, keywords)})  # noqa: E731
        layer.layer.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        for layer, (arguments, keywords) in list(calls.items()):
            hidden = arguments[0] if arguments else keywords["hidden_states"]

            def compute(layer=layer, arguments=arguments, keywords=keywords):
                output = layer(*arguments, **keywords)
                return output[0] if isinstance(output, tuple) else output

            (own,) = (known for known in wrapper.get_layer_wrappers() if known.layer is layer)
            folds = working_folds(possible_folds(wrapper, own), compute, hidden, compute())
            assert {fold.name for fold in folds} == expected
            for fold in folds:
                columns = torch.empty(fold.linears[0].in_features).uniform_(-1.5, 1.5, generator=generator)
                weights = [linear.weight.clone() for linear in fold.linears]
                fold.apply(fold.shared(columns).exp())
                assert not torch.equal(weights[0], fold.linears[0].weight)
        after = model(ids, use_cache=False).logits
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * before.abs().max().item())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_grid_is_olives(bits, symmetric):
    import torch
    from olive.common.quant.utils import WeightQuantizer

    from resources.olive.passes.quantization_grid import GridShape, bounds, grid, rounded

    weight = torch.randn(40, 128, generator=torch.Generator().manual_seed(0))
    weight[3, :32] = 0.0
    shape = GridShape(bits, 32, symmetric)
    groups = shape.groups(weight)
    ours = rounded(groups, *grid(*bounds(groups), shape), shape).view_as(weight)
    torch.testing.assert_close(ours, WeightQuantizer(bits, symmetric, 32).fake_quantize(weight))


def test_clipping_lowers_the_error_it_is_judged_by():
    import torch

    from resources.olive.passes.awq_clip import best_grid
    from resources.olive.passes.quantization_grid import GridShape, rounded

    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(24, 64, generator=generator), torch.randn(200, 64, generator=generator)
    weight[:, ::32] *= 4
    inputs[:, ::32] *= 0.01
    shape = GridShape(4, 32, False)
    grouped = shape.groups(inputs).transpose(0, 1)
    gram = grouped.transpose(1, 2) @ grouped

    def output_error(searched):
        grid = best_grid(weight, searched, shape)
        values = rounded(shape.groups(weight), *(part.unsqueeze(-1) for part in grid), shape)
        return ((values.view_as(weight) - weight) @ inputs.T).square().sum()

    assert output_error(gram) < 0.7 * output_error(None)


@pytest.fixture(scope="module")
def random_samples(tmp_path_factory):
    generator = random.Random(0)
    file = tmp_path_factory.mktemp("samples") / "samples.json"
    file.write_text(json.dumps([[generator.randrange(2, 500) for _ in range(64)] for _ in range(4)]))
    return file


def awq(base, samples, folder, **changed):
    settings = {"bits": 4, "group_size": 32, "symmetric": False, "ratios": 10, "clip": True} | changed
    progress = RecordedProgress()
    run_workflow(unhashed(awq_run_config(base, samples, **settings)), folder, progress, PASSES)
    return progress


def rtn(base, folder, group_size=32):
    olive_pass = {"type": "Rtn", "bits": 4, "group_size": group_size, "sym": False}
    run_workflow({"input_model": {"type": "HfModel", "model_path": str(base)}, "passes": {"rtn": olive_pass}}, folder)


def logit_error(base, folder):
    """Mean squared difference of logits between the float model in `base` and the quantized one in `folder`."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.randint(2, 500, (2, 64), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(ids).logits
        return (load_dequantized(folder)(ids).logits - expected).square().mean().item()


def with_salient_columns(base, folder):
    """The model in `base` with every sixteenth output of each norm 30 times larger, and read 30 times smaller."""
    import torch
    from olive.common.hf.wrapper import ModelWrapper
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for layer in ModelWrapper.from_model(model).get_layer_wrappers():
            layer.get_first_layer_norm(return_name=False).weight[::16] *= 30
            layer.get_second_layer_norm(return_name=False).weight[::16] *= 30
            for linear in layer.get_attention_inputs(return_name=False) + layer.get_mlp_inputs(return_name=False):
                linear.weight[:, ::16] /= 30
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tiny", ["tiny_llama", "tiny_phi3", "tiny_qwen2"])
def test_recovers_what_rounding_loses_on_salient_columns(tiny, request, random_samples, tmp_path):
    base = with_salient_columns(request.getfixturevalue(tiny), tmp_path / "base")
    progress = awq(base, random_samples, tmp_path / "awq")
    rtn(base, tmp_path / "rtn")
    assert logit_error(base, tmp_path / "awq") < 0.5 * logit_error(base, tmp_path / "rtn")
    assert progress.steps == [("awq", 1, 2), ("awq", 2, 2)]
    saved = json.loads((tmp_path / "awq" / "config.json").read_text())["quantization_config"]
    assert (saved["quant_method"], saved["bits"], saved["group_size"]) == ("olive", 4, 32)
    rows = json.loads((tmp_path / "awq" / "awq_layers.json").read_text())
    assert {(row["layer"], row["fold"]) for row in rows} == {(layer, fold) for layer in (0, 1) for fold in EVERY_FOLD}
    assert all(row["error_after"] <= row["error_before"] for row in rows)


def test_an_unhashed_base_model_gives_the_same_files(tiny_phi3, random_samples, tmp_path):
    settings = {"bits": 4, "group_size": 32, "symmetric": False, "ratios": 3, "clip": False}
    plain = awq_run_config(tiny_phi3, random_samples, **settings)
    contents = []
    for name, run_config in {"hashed": plain, "unhashed": unhashed(plain)}.items():
        run_workflow(run_config, tmp_path / name, passes=PASSES)
        contents.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("tiny", ["tiny_llama", "tiny_phi3", "tiny_qwen2"])
def test_batches_change_nothing_but_the_last_bits(tiny, request, random_samples, tmp_path):
    from safetensors.torch import load_file

    base = with_salient_columns(request.getfixturevalue(tiny), tmp_path / "base")
    awq(base, random_samples, tmp_path / "one")
    with timed_phases() as seconds:
        awq(base, random_samples, tmp_path / "three", batch_size=3)  # 4 samples: the last batch has one
    assert set(seconds) == {"load", "calibrate", "search", "clip", "pack", "save"}
    one, three = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "three"))
    packed = [name for name in one if name.endswith("qweight")]
    equal = sum((one[name] == three[name]).sum().item() for name in packed)
    assert equal / sum(one[name].numel() for name in packed) > 0.999


@pytest.mark.parametrize("changed", [{"bits": 8}, {"bits": 8, "symmetric": True}, {"clip": False}, {"symmetric": True}])
def test_every_setting_gives_a_model_near_the_float_one(tiny_llama, random_samples, tmp_path, changed):
    awq(tiny_llama, random_samples, tmp_path / "awq", **changed)
    rtn(tiny_llama, tmp_path / "rtn")
    limit = 0.02 if changed.get("bits") == 8 else 2.0
    assert logit_error(tiny_llama, tmp_path / "awq") < limit * logit_error(tiny_llama, tmp_path / "rtn")


def test_a_bfloat16_model_stays_bfloat16_and_keeps_its_quality(tiny_llama, random_samples, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(base)
    awq(base, random_samples, tmp_path / "half", bits=8)
    awq(tiny_llama, random_samples, tmp_path / "float", bits=8)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16, torch.uint8}
    error, float_error = logit_error(base, tmp_path / "half"), logit_error(tiny_llama, tmp_path / "float")
    assert error < 10 * float_error


def test_recovers_half_of_what_rtn_loses_on_smollm2(smollm2, tmp_path):
    """The benchmark's figures on a smaller sample: benchmarks/quantization.py has the whole table."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text, tokenizer = read("python-docs", tmp_path), AutoTokenizer.from_pretrained(smollm2)
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps(token_samples(tokenizer, calibration_part(text), 8, 256)))
    measuring = token_samples(tokenizer, measuring_part(text), 8, 384)
    rtn(smollm2, tmp_path / "rtn")
    awq(smollm2, samples, tmp_path / "awq")
    floats = perplexity(AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32), measuring)
    rounded, ours = (perplexity(load_dequantized(tmp_path / name), measuring) for name in ("rtn", "awq"))
    assert floats < ours < rounded
    assert (rounded - ours) / (rounded - floats) >= 0.5
