"""Beyond the original context of a longrope model every stage computes with the long factors, and ONNX as PyTorch."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from assets.awq_model import AwqModel
from assets.eval_report import EvalReport
from assets.experiment import Experiment
from assets.lora_adapter import LoraAdapter
from assets.onnx_graph import ExactOnnxGraph, OnnxGraph
from assets.onnx_model import OnnxModel
from resources.calibration_text import read
from resources.context import rope_switch
from resources.errors import ConfigurationError, StageError
from resources.genai import GenaiModel
from resources.olive.awq_folder import load_dequantized
from resources.olive.graft import graft_adapter
from resources.parity import Parity
from resources.teacher_forcing import TeacherForcedGraph
from tests.onnx_folders import torch_logits
from tests.pressed import produce

ORIGINAL, CONTEXT = 128, 256  # of the tiny Phi-3
LENGTHS = (24, ORIGINAL, ORIGINAL + 1, 180)
WORDS = "the old town and the river and the bridge and the market and the sea "
SHORT = {"prompt": "What should I see?", "response": "See the old town."}
LONG = {"prompt": f"What should I see? {WORDS * 4}", "response": f"See {WORDS}."}
SECTIONS = {
    "awq_model": {"group_size": 16, "samples": 2, "tokens": 160, "ratios": 4, "measure_samples": 1},
    "lora_adapter": {
        "r": 4, "steps": 6, "batch_size": 2, "max_tokens": CONTEXT, "warmup_steps": 1, "learning_rate": 0.02,
        "target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    },
    "onnx_model": {"adapter": "travel"},
    "eval_report": {"generated_rows": 2, "max_new_tokens": 8, "parity_rows": 4},
    "dataset": {"path": "rows.jsonl"},
    "registered_model": {"name": "tiny"},
}  # fmt: skip


def open_experiment(base, root, **changes):
    sections = SECTIONS | {name: SECTIONS[name] | change for name, change in changes.items()}
    return Experiment(name="long", root=root, base_model={"folder": str(base)}, **sections)


def write_rows(folder, train, held_out):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("eval", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pressed(tiny_phi3, tmp_path_factory):
    """Every stage's artifact, by the real stages, calibrated and trained beyond the original context."""
    root = tmp_path_factory.mktemp("long")
    text = root / "calibration_text"
    text.mkdir()
    (text / "text.txt").write_text(read("python-docs", text), encoding="utf-8")
    experiment = open_experiment(tiny_phi3, root)
    made = {"base_model": tiny_phi3, "calibration_text": text}
    made["dataset"] = write_rows(root / "dataset", [SHORT, LONG] * 3, [SHORT, LONG])
    for recipe in (AwqModel, LoraAdapter, OnnxGraph, ExactOnnxGraph, OnnxModel, EvalReport):
        made[recipe.name] = produce(recipe(experiment), root / recipe.name, made)
    made["exact"] = root / "exact"
    graft_adapter(made["onnx_graph_exact"], made["lora_adapter"], made["exact"], "travel")
    return SimpleNamespace(**made, root=root, experiment=experiment)


def ids_of(length, seed=0):
    return [int(token) for token in np.random.default_rng(seed).integers(3, 500, length)]


@pytest.mark.parametrize("adapter", [None, "travel"])
@pytest.mark.parametrize("length", LENGTHS)
def test_exact_graph_gives_the_logits_of_pytorch(pressed, length, adapter):
    ids = ids_of(length)
    expected = torch_logits(pressed.awq_model, [ids], pressed.lora_adapter if adapter else None)[0]
    found = TeacherForcedGraph(pressed.exact).logits(ids, adapter)
    assert (expected.argmax(-1) == found.argmax(-1)).all()
    assert np.abs(expected - found).max() < 1e-3


@pytest.mark.parametrize("adapter", [None, "travel"])
@pytest.mark.parametrize("length", LENGTHS)
def test_shipped_graph_is_as_close_beyond_the_original_context(pressed, length, adapter):
    ids = ids_of(length)
    expected = torch_logits(pressed.awq_model, [ids], pressed.lora_adapter if adapter else None)[0]
    parity = Parity()
    parity.add(expected, TeacherForcedGraph(pressed.onnx_model).logits(ids, adapter))
    assert parity.as_json()["kl_nats"] < 0.05


def test_long_factors_are_other_factors(pressed):
    ids = ids_of(180)
    whole, beginning = (torch_logits(pressed.awq_model, [part])[0] for part in (ids, ids[:100]))
    assert np.abs(whole[:100] - beginning).max() > 0.1


@pytest.mark.parametrize("adapter", [None, "travel"])
@pytest.mark.parametrize("length", [100, ORIGINAL, 180])
def test_genai_gives_the_logits_of_pytorch_for_a_prompt(pressed, length, adapter):
    import onnxruntime_genai as og

    model = og.Model(str(pressed.exact))
    adapters = og.Adapters(model)
    adapters.load(str(pressed.exact / "adapters" / "travel.onnx_adapter"), "travel")
    generator = og.Generator(model, og.GeneratorParams(model))
    if adapter:
        generator.set_active_adapter(adapters, adapter)
    generator.append_tokens(np.array([ids_of(length)], np.int32))
    expected = torch_logits(pressed.awq_model, [ids_of(length)], pressed.lora_adapter if adapter else None)
    assert np.abs(np.array(generator.get_output("logits")) - expected).max() < 1e-3


def prompt_of(model, tokens):
    """A prompt whose chat takes `tokens` tokens."""
    for characters in range(1000):
        prompt = (WORDS * 20)[:characters]
        if len(model.chat_token_ids(prompt)) == tokens:
            return prompt
    raise AssertionError(f"no prompt of {tokens} tokens")


def generated_by_transformers(pressed, ids, adapter, count):
    """`count` greedy tokens after `ids`, by transformers with its key-value cache."""
    import torch
    from peft import PeftModel

    model = load_dequantized(pressed.awq_model)
    if adapter:
        model = PeftModel.from_pretrained(model, str(pressed.lora_adapter)).eval()
    settings = {"max_new_tokens": count, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    with torch.no_grad():
        return model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **settings)[0][
            len(ids) :
        ].tolist()


def generated_by_genai_alone(folder, ids, count):
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + count, min_length=len(ids) + count, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([ids], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(ids) :]


@pytest.mark.parametrize("adapter", [None, "travel"])
@pytest.mark.parametrize("before", [0, 1, 6])
def test_an_answer_that_crosses_the_original_context_is_that_of_pytorch(pressed, adapter, before):
    import onnxruntime_genai as og

    model = GenaiModel(pressed.exact, adapter)
    prompt = prompt_of(model, ORIGINAL - before)
    expected = generated_by_transformers(pressed, model.chat_token_ids(prompt), adapter, 24)
    stops = set(og.Tokenizer(og.Model(str(pressed.exact))).eos_token_ids)
    ended = next((at for at, token in enumerate(expected) if token in stops), len(expected))
    stream = og.Tokenizer(og.Model(str(pressed.exact))).create_stream()
    answer = model.generate(prompt, 24)
    assert answer.text == "".join(stream.decode(token) for token in expected[:ended]).strip()
    assert answer.tokens > before + 1  # it did cross


def test_pytorch_answers_across_the_original_context_as_if_asked_there(pressed):
    ids = ids_of(ORIGINAL - 4)
    expected = generated_by_transformers(pressed, ids, None, 16)
    again = [*ids, *expected[:8]]
    assert generated_by_transformers(pressed, again, None, 8) == expected[8:]


def test_genai_alone_still_keeps_the_keys_of_the_short_factors(pressed):
    """Fails when a release recomputes them at other lengths than 4096: GenaiModel need not do it then."""
    ids = ids_of(ORIGINAL - 4)
    expected = generated_by_transformers(pressed, ids, None, 24)
    found = generated_by_genai_alone(pressed.exact, ids, 24)
    assert found[:4] == expected[:4]
    assert found != expected


def test_genai_alone_heeds_the_original_context_of_phi35(tiny_phi3, tmp_path):
    """It recomputes at 4096 by heart; GenaiModel leaves it to it there (HEEDED_SWITCHES)."""
    from tests.onnx_folders import quantize

    base = shutil.copytree(tiny_phi3, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config |= {"original_max_position_embeddings": 4096, "max_position_embeddings": 8192}
    config["rope_parameters"]["original_max_position_embeddings"] = 4096
    (base / "config.json").write_text(json.dumps(config))
    made = {"awq_model": quantize(base, tmp_path)}
    graph = produce(ExactOnnxGraph(open_experiment(base, tmp_path)), tmp_path / "graph", made)
    ids = ids_of(4094)
    expected = generated_by_transformers(SimpleNamespace(**made), ids, None, 8)
    assert generated_by_genai_alone(graph, ids, 8) == expected
    assert json.loads((graph / "graph.json").read_text())["rope_switch"] == 4096


def test_report_covers_rows_on_both_sides(pressed):
    report = json.loads((pressed.eval_report / "report.json").read_text())
    assert report["rows"]["parity"] == 2
    assert report["parity"]["exact"]["agreement"] == 1 and report["parity"]["exact_base"]["agreement"] == 1
    short, long = (len(GenaiModel(pressed.exact).chat_token_ids(row["prompt"])) for row in (SHORT, LONG))
    assert short < ORIGINAL < long
    assert report["parity"]["exact"]["tokens"] > short + long  # nothing of the long row was taken as seen


def test_a_row_beyond_the_context_is_an_error_that_says_so(pressed, tmp_path):
    far = {"prompt": WORDS * 12, "response": WORDS}
    inputs = {name: getattr(pressed, name) for name in (*EvalReport.made_from, "onnx_graph_exact")}
    inputs["dataset"] = write_rows(tmp_path / "dataset", [], [SHORT, far])
    with pytest.raises(StageError, match=r"a held-out row has \d+ tokens, and the model takes at most 256"):
        produce(EvalReport(pressed.experiment), tmp_path / "eval_report", inputs)


@pytest.mark.parametrize(
    ("recipe", "change"),
    [(AwqModel, {"awq_model": {"tokens": 257}}), (LoraAdapter, {"lora_adapter": {"max_tokens": 257}})],
)
def test_more_tokens_than_the_context_are_refused(pressed, tiny_phi3, tmp_path, recipe, change):
    inputs = {name: getattr(pressed, name) for name in recipe.made_from}
    stage = recipe(open_experiment(tiny_phi3, tmp_path, **change))
    with pytest.raises(ConfigurationError, match=r"tokens: found 257 tokens; accepted: at most 256, the context"):
        produce(stage, tmp_path / "made", inputs)
    if recipe is AwqModel:
        with pytest.raises(ConfigurationError, match=r"awq_model\.tokens"):
            stage.check()


def test_a_batch_of_short_and_long_rows_trains_each_with_its_own_factors(pressed):
    import torch
    from olive.passes.pytorch.lora import LoRA
    from transformers import AutoTokenizer

    from resources.olive.passes.response_rows import ResponseRow
    from resources.olive.passes.response_trainer import response_loss

    model, tokenizer = load_dequantized(pressed.awq_model), AutoTokenizer.from_pretrained(pressed.awq_model)
    rows = [
        ResponseRow(tuple(ids_of(length, length)), tuple(ids_of(count, count)))
        for length, count in ((20, 5), (150, 9), (100, 28), (60, 4), (120, 9))
    ]
    batch = LoRA.collate_batch([row.sample() for row in rows], tokenizer)
    singles = [LoRA.collate_batch([row.sample()], tokenizer) for row in rows]
    counts = [len(row.response) for row in rows]
    with torch.no_grad():
        expected = sum(response_loss(model, one).item() * count for one, count in zip(singles, counts, strict=True))
        apart, together = response_loss(model, batch, ORIGINAL).item(), response_loss(model, batch).item()
    assert apart == pytest.approx(expected / sum(counts), rel=1e-5)
    assert together != pytest.approx(apart, rel=1e-3)


@pytest.mark.parametrize(
    ("config", "switch"),
    [
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 4096),  # as published
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 128}}, 128),
        ({"rope_parameters": {"rope_type": "default"}}, None),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 128}}, None),
        ({"rope_scaling": None}, None),
    ],
)
def test_where_the_factors_change(config, switch):
    assert rope_switch(config) == switch
