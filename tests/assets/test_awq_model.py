"""The awq_model stage: what it leaves, what it says of it, and how it refuses what cannot work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from assets.awq_model import AwqModel
from assets.experiment import Experiment
from assets.stage import Attempt
from resources.calibration_text import read
from resources.errors import ConfigurationError, PressError
from resources.olive.awq_folder import load_dequantized
from resources.progress import RecordedProgress


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibration_text")
    (folder / "text.txt").write_text(read("python-docs", folder), encoding="utf-8")
    return folder


def stage_of(base: Path, **awq) -> AwqModel:
    sections = {"base_model": {"folder": str(base)}, "dataset": {"path": "x"}, "registered_model": {"name": "x"}}
    awq = {"group_size": 32, "samples": 4, "tokens": 64, "ratios": 5} | awq
    return AwqModel(Experiment(name="some", root=base.parent, awq_model=awq, **sections))


def produce(stage: AwqModel, base: Path, text: Path, folder: Path) -> RecordedProgress:
    progress = RecordedProgress()
    for place in (folder, folder.with_name(folder.name + "-scratch")):
        place.mkdir(parents=True)
    scratch = folder.with_name(folder.name + "-scratch")
    stage.produce(Attempt(folder, scratch, {"base_model": base, "calibration_text": text}, progress))
    return progress


@pytest.mark.parametrize("tiny", ["tiny_llama", "tiny_phi3", "tiny_qwen2"])
def test_leaves_a_usable_quantized_folder_and_says_what_it_is(tiny, request, text_folder, tmp_path):
    from transformers import AutoTokenizer

    base = request.getfixturevalue(tiny)
    stage = stage_of(base)
    progress = produce(stage, base, text_folder, tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "awq_metrics.json"} <= names
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    saved, expected = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", base))
    assert saved.pop("quantization_config")["quant_method"] == "olive"
    assert saved == expected
    chat = [{"role": "user", "content": "Hi"}]
    original = AutoTokenizer.from_pretrained(base)
    assert tokenizer.apply_chat_template(chat) == original.apply_chat_template(chat)
    model = load_dequantized(tmp_path / "out")
    assert model.get_output_embeddings().weight.dtype == model.dtype
    assert {step for step in progress.steps if step[0] == "awq"} == {("awq", 1, 2), ("awq", 2, 2)}

    facts = stage.facts(tmp_path / "out")
    assert facts.numbers["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert facts.numbers["compression_ratio"] > 1.5
    assert facts.numbers["float_perplexity"] > 1 and facts.numbers["awq_perplexity"] > 1
    assert len(facts.tables["layers"]) == 8
    assert set(facts.tables["layers"][0]) == {"layer", "fold", "ratio", "error_before", "error_after"}
    assert "int4, asymmetric, groups of 32" in facts.texts["summary"]


def test_makes_the_same_bytes_again_whatever_the_place(tiny_llama, text_folder, tmp_path):
    other_base = shutil.copytree(tiny_llama, tmp_path / "copy" / "base")
    produce(stage_of(tiny_llama), tiny_llama, text_folder, tmp_path / "first")
    produce(stage_of(other_base), other_base, text_folder, tmp_path / "elsewhere" / "second")
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    assert sorted(file.name for file in first.iterdir()) == sorted(file.name for file in second.iterdir())
    for file in first.iterdir():
        content = file.read_bytes()
        assert content == (second / file.name).read_bytes(), file.name
        assert str(tmp_path).encode() not in content and str(tiny_llama).encode() not in content


def test_another_seed_calibrates_on_other_text(tiny_llama, text_folder, tmp_path):
    produce(stage_of(tiny_llama), tiny_llama, text_folder, tmp_path / "first")
    produce(stage_of(tiny_llama, seed=1), tiny_llama, text_folder, tmp_path / "second")
    first, second = ((tmp_path / name / "awq_metrics.json").read_text() for name in ("first", "second"))
    assert first != second


def test_measures_nothing_where_told_so(tiny_llama, text_folder, tmp_path):
    stage = stage_of(tiny_llama, measure_samples=0)
    produce(stage, tiny_llama, text_folder, tmp_path / "out")
    facts = stage.facts(tmp_path / "out")
    assert not {"float_perplexity", "awq_perplexity"} & facts.numbers.keys()
    assert "Perplexity" not in facts.texts["summary"]


def test_a_group_size_that_does_not_fit_is_refused_before_anything_runs(tiny_llama, text_folder, tmp_path):
    stage = stage_of(tiny_llama, group_size=128)
    message = r"awq_model\.group_size: found 128, .*accepted: 16, 32, 64"
    with pytest.raises(ConfigurationError, match=message):
        stage.check()
    with pytest.raises(ConfigurationError, match=message):
        produce(stage, tiny_llama, text_folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_check_accepts_a_folder_that_is_not_there_yet(tmp_path):
    stage_of(tmp_path / "nowhere").check()


def test_a_text_that_is_too_short_names_the_key(tiny_llama, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "text.txt").write_text("Short.")
    with pytest.raises(ConfigurationError, match=r"awq_model\.calibration_text: .*at least 256"):
        produce(stage_of(tiny_llama), tiny_llama, tmp_path / "text", tmp_path / "out")


def _without_config(base: Path) -> None:
    (base / "config.json").unlink()


def _classifier(base: Path) -> None:
    config = json.loads((base / "config.json").read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    (base / "config.json").write_text(json.dumps(config))


def _without_tokenizer(base: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()


def _broken_config(base: Path) -> None:
    (base / "config.json").write_text('{"architectures": [')


def _unknown_architecture(base: Path) -> None:
    from transformers import MptConfig, MptForCausalLM

    (base / "model.safetensors").unlink()
    MptForCausalLM(MptConfig(vocab_size=512, d_model=64, n_layers=1, n_heads=4)).save_pretrained(base)


def _no_linear_layers(base: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    (base / "model.safetensors").unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=64, n_layer=1, n_head=4)).save_pretrained(base)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_config, "base_model: found no config.json"),
        (_broken_config, "base_model: found a broken config.json"),
        (_classifier, "base_model: found LlamaForSequenceClassification"),
        (_without_tokenizer, "base_model: found no usable tokenizer"),
        (_unknown_architecture, "base_model: found an unknown architecture"),
        (_no_linear_layers, "base_model: found GPT2LMHeadModel, which has no linear layers"),
    ],
)
def test_a_wrong_base_model_ends_with_one_clear_error(tiny_llama, text_folder, tmp_path, damage, message):
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    damage(base)
    with pytest.raises(ConfigurationError, match=message):
        produce(stage_of(base), base, text_folder, tmp_path / "out")


def test_an_architecture_whose_layers_allow_no_scales_is_clipped_all_the_same(tiny_llama, text_folder, tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    base = shutil.copytree(tiny_llama, tmp_path / "base")
    (base / "model.safetensors").unlink()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=512, **sizes)).save_pretrained(base)
    stage = stage_of(base)
    produce(stage, base, text_folder, tmp_path / "out")
    facts = stage.facts(tmp_path / "out")
    assert facts.tables["layers"] == []
    assert facts.numbers["awq_perplexity"] < 1.1 * facts.numbers["float_perplexity"]


def test_damaged_weights_end_with_an_error_and_no_model(tiny_llama, text_folder, tmp_path):
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    whole = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PressError, match=r"awq_model: .*"):
        produce(stage_of(base), base, text_folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
