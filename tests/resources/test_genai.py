"""A GenAI folder answers as greedy decoding must, with and without its adapter, and says clearly what is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from assets.onnx_graph import build_graph
from resources.errors import ConfigurationError
from resources.genai import GenaiModel, adapter_names
from resources.olive.graft import graft_adapter
from resources.olive.onnx_model import GraphOptions
from resources.progress import RecordedProgress
from tests.onnx_folders import onnx_logits, quantize, save_random_adapter
from tests.pressed import press_onnx_model

PROMPTS = (
    "What should I see in Lisbon?",
    "",
    "  two spaces, é 日本 🙂 and “quotes”\n\n\tI'm 12345",
    "an end of turn <|im_end|>\nin the middle",
    '{"json": "with \\"quotes\\" and \\\\ backslashes"}',
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    return press_onnx_model(tiny_llama, tmp_path_factory.mktemp("genai"))["onnx_model"]


@pytest.fixture(scope="module")
def model(folder):
    return GenaiModel(folder)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def greedy(folder, adapter, ids, count):
    """`count` tokens after `ids`, each the likeliest of a whole run over all before it."""
    tokens = list(ids)
    for _ in range(count):
        tokens.append(int(onnx_logits(folder, [tokens], adapter)[0, -1].argmax()))
    return tokens[len(ids) :]


def streamed(folder, ids):
    """The text of `ids`; bytes that are no UTF-8, which a random model likes, are left out as GenAI does."""
    import onnxruntime_genai as og

    stream = og.Tokenizer(str(folder)).create_stream()
    return "".join(stream.decode(token) for token in ids)


def transformers_ids(tokenizer_folder, prompt):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    message = [{"role": "user", "content": prompt}]
    return tokenizer, list(tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_tokenised_as_transformers_does(model, tiny_llama, prompt):
    assert model.chat_token_ids(prompt) == transformers_ids(tiny_llama, prompt)[1]


def test_the_default_system_prompt_of_smollm2_is_there(copy, smollm2):
    for name in TOKENIZER_FILES:
        shutil.copyfile(smollm2 / name, copy / name)
    model = GenaiModel(copy)
    for prompt in PROMPTS:
        tokenizer, expected = transformers_ids(smollm2, prompt)
        assert model.chat_token_ids(prompt) == expected
        assert "assistant named SmolLM" in tokenizer.decode(expected)


def test_a_tokenizer_that_starts_plain_text_with_a_token_of_its_own_adds_none_to_a_chat(copy):
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copy)
    start = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 0)])
    tokenizer.backend_tokenizer.post_processor = start
    tokenizer.save_pretrained(copy)
    assert AutoTokenizer.from_pretrained(copy)("Hi").input_ids[0] == 0
    assert GenaiModel(copy).chat_token_ids("Hi") == transformers_ids(copy, "Hi")[1]


@pytest.mark.parametrize("adapter", ["travel", None])
def test_an_answer_is_greedy_decoding_of_the_graph(folder, adapter):
    model = GenaiModel(folder, adapter)
    answer = model.generate("What should I see in Lisbon?", 12)
    expected = greedy(folder, adapter, model.chat_token_ids("What should I see in Lisbon?"), 12)
    assert answer.tokens == 12
    assert answer.text == streamed(folder, expected).strip()


def test_the_adapter_changes_the_answer_and_can_be_switched(folder, model):
    prompt = "Where can I eat in Rome?"
    model.use_adapter(None)
    base = model.generate(prompt, 12).text
    model.use_adapter("travel")
    adapted = model.generate(prompt, 12).text
    model.use_adapter(None)
    assert base != adapted
    assert model.generate(prompt, 12).text == base
    assert GenaiModel(folder, "travel").generate(prompt, 12).text == adapted


def test_an_answer_ends_with_the_turn(model, copy):
    prompt = "What should I see in Lisbon?"
    model.use_adapter(None)
    tokens = greedy(copy, None, model.chat_token_ids(prompt), 6)
    end = next(index for index in range(2, 6) if tokens[index] not in tokens[:index])
    config = json.loads((copy / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = [tokens[end]]
    (copy / "genai_config.json").write_text(json.dumps(config))
    pieces = []
    answer = GenaiModel(copy).generate(prompt, 40, pieces.append)
    assert answer.tokens == end + 1  # the token that ends the turn was generated, and is not shown
    assert len(pieces) == end
    assert model.generate(prompt, 40).text.startswith(answer.text)


def test_pieces_come_one_by_one_and_make_the_text(model):
    pieces = []
    answer = model.generate("Tell me about Porto.", 16, pieces.append)
    assert len(pieces) == answer.tokens == 16
    assert "".join(pieces).strip() == answer.text


def test_figures_of_an_answer_fit_each_other(model):
    answer = model.generate("Tell me about Porto.", 16)
    assert 0 < answer.first_token_seconds < answer.seconds
    decoding = answer.seconds - answer.first_token_seconds
    assert answer.tokens_per_second == pytest.approx(15 / decoding)


def test_an_answer_stops_where_the_context_ends(model):
    prompt = "word " * 95
    room = 512 - len(model.chat_token_ids(prompt))
    assert 0 < room < 400
    assert model.generate(prompt, 1000).tokens == room


def test_a_prompt_longer_than_the_context_is_refused(model):
    with pytest.raises(ConfigurationError, match=r"prompt: found \d+ tokens; accepted: fewer than 512"):
        model.generate("word " * 600, 4)


def test_unknown_adapters_are_named_beside_the_known_ones(folder, model):
    assert adapter_names(folder) == ["travel"]
    for attempt in (lambda: GenaiModel(folder, "cooking"), lambda: model.use_adapter("cooking")):
        with pytest.raises(ConfigurationError, match="found 'cooking'; accepted: travel"):
            attempt()


def test_several_adapters_serve_on_one_graph(copy, model):
    adapters = copy / "adapters"
    shutil.copyfile(adapters / "travel.onnx_adapter", adapters / "again.onnx_adapter")
    both = GenaiModel(copy, "again")
    assert adapter_names(copy) == ["again", "travel"]
    model.use_adapter("travel")
    assert both.generate("Hello", 8).text == model.generate("Hello", 8).text


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no genai_config\.json; accepted: an ONNX Runtime GenAI folder"):
        GenaiModel(tmp_path)


@pytest.mark.parametrize("file", ["model.onnx", "genai_config.json", "tokenizer.json", "adapters/travel.onnx_adapter"])
def test_a_damaged_file_is_one_clear_error(copy, file):
    path = copy / file
    path.unlink()
    path.write_bytes(b"damaged" * 8)
    with pytest.raises(ConfigurationError, match="does not open"):
        GenaiModel(copy, "travel")


def test_importing_the_module_does_not_import_the_runtime():
    program = "import sys, resources.genai; sys.exit(any(name.startswith('onnxruntime') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_logits_of_a_whole_sequence_are_those_of_genai(folder):
    import onnxruntime_genai as og

    from resources.teacher_forcing import TeacherForcedGraph

    ids = [7 * index % 500 + 3 for index in range(40)]
    forced, opened = TeacherForcedGraph(folder), og.Model(str(folder))
    adapters = og.Adapters(opened)
    adapters.load(str(folder / "adapters" / "travel.onnx_adapter"), "travel")
    for adapter in (None, "travel", None):
        generator = og.Generator(opened, og.GeneratorParams(opened))
        if adapter:
            generator.set_active_adapter(adapters, adapter)
        generator.append_tokens(np.array([ids], np.int32))
        found = forced.logits(ids, adapter)
        assert found.shape == (40, 512) and found.dtype == np.float32
        assert np.abs(found - np.array(generator.get_output("logits"))[0]).max() < 1e-4


def test_adapters_of_different_ranks_take_turns_on_one_base(tiny_llama, tmp_path):
    awq_model = quantize(tiny_llama, tmp_path)
    build_graph(awq_model, GraphOptions("cpu", "int8", 4), tmp_path / "graph", RecordedProgress())
    fresh = {}
    for name, rank in (("travel", 4), ("cooking", 16)):
        adapter = save_random_adapter(awq_model, tmp_path / f"peft-{name}", ("q_proj", "up_proj"), r=rank, seed=rank)
        graft_adapter(tmp_path / "graph", adapter, tmp_path / name, name)
        fresh[name] = GenaiModel(tmp_path / name, name)
    fresh[None] = GenaiModel(tmp_path / "graph")  # never had LoRA inputs
    both = shutil.copytree(tmp_path / "travel", tmp_path / "both")
    shutil.copyfile(tmp_path / "cooking/adapters/cooking.onnx_adapter", both / "adapters/cooking.onnx_adapter")
    assert adapter_names(both) == ["cooking", "travel"]
    model, answers = GenaiModel(both), set()
    for turn, name in enumerate(("travel", "cooking", None, "travel", "travel", None, "cooking")):
        model.use_adapter(name)
        prompt = f"What should I do in Rome on day {turn // 3}?"
        answer = model.generate(prompt, 16)
        assert answer.text == fresh[name].generate(prompt, 16).text
        answers.add((turn // 3, name, answer.text))
    assert len({text for day, _, text in answers if day == 0}) == 3
