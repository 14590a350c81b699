"""One int4 base, any number of adapters: each computes what PEFT computes, and none changes the base."""

from types import SimpleNamespace

import numpy as np
import pytest

from assets.onnx_graph import build_graph
from resources.errors import StageError
from resources.olive.graft import graft_adapter
from resources.olive.onnx_model import GraphOptions
from resources.olive.peft_adapter import read_adapter
from resources.progress import RecordedProgress
from resources.store.digests import sha256_of
from tests.onnx_folders import IDS, onnx_logits, open_graph, quantize, save_random_adapter, torch_logits
from tests.tiny_models import ARCHITECTURES

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "qwen2": ("k_proj", "v_proj", "down_proj"),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GRAFTED = {"llama": ALL, "phi3": ALL, "qwen2": ["k_proj", "v_proj", "down_proj"]}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pressed(request, tmp_path_factory):
    """An olive-quantized model, its exact graph, a random adapter and the graph with that adapter grafted."""
    folder = tmp_path_factory.mktemp(request.param)
    awq_model = quantize(request.getfixturevalue(f"tiny_{request.param}"), folder)
    build_graph(awq_model, GraphOptions("cpu", "float", 1), folder / "graph", RecordedProgress())
    adapter = save_random_adapter(awq_model, folder / "adapter", TARGETS[request.param])
    grafted = graft_adapter(folder / "graph", adapter, folder / "grafted", "travel")
    return SimpleNamespace(
        architecture=request.param,
        awq_model=awq_model,
        graph=folder / "graph",
        adapter=adapter,
        folder=folder / "grafted",
        grafted=grafted,
    )


@pytest.fixture(scope="module")
def llama(tiny_llama, tmp_path_factory):
    """An olive-quantized Llama and its exact graph."""
    folder = tmp_path_factory.mktemp("llama")
    awq_model = quantize(tiny_llama, folder)
    build_graph(awq_model, GraphOptions("cpu", "float", 1), folder / "graph", RecordedProgress())
    return SimpleNamespace(awq_model=awq_model, graph=folder / "graph")


def test_with_the_adapter_the_graph_gives_the_logits_of_peft(pressed):
    expected = torch_logits(pressed.awq_model, IDS, pressed.adapter)
    found = onnx_logits(pressed.folder, IDS, "travel")
    assert (expected.argmax(-1) == found.argmax(-1)).all()
    assert np.abs(expected - found).max() < 1e-4
    assert np.abs(expected - torch_logits(pressed.awq_model, IDS)).max() > 0.5  # it does something


def test_without_an_adapter_the_base_answers_as_before(pressed):
    assert np.abs(onnx_logits(pressed.folder, IDS) - onnx_logits(pressed.graph, IDS)).max() < 1e-4


def test_every_target_is_grafted_in_every_layer(pressed):
    assert [name.split(".")[-1] for name in pressed.grafted if name.startswith("layers.1.")] == GRAFTED[
        pressed.architecture
    ]
    assert len(pressed.grafted) == 2 * len(GRAFTED[pressed.architecture])


def test_lora_inputs_have_defaults_of_rank_0(pressed):
    graph = open_graph(pressed.folder).graph
    inputs = {value.name: value for value in graph.inputs if ".lora_" in (value.name or "")}
    assert inputs
    for name, value in inputs.items():
        assert str(value.shape[1 if "lora_A" in name else 0]) == "lora_r"
        assert graph.initializers[name].const_value.size == 0


def test_data_of_the_base_is_the_same_file(pressed):
    for name in ("model.onnx.data", "tokenizer.json", "genai_config.json"):
        assert (pressed.folder / name).samefile(pressed.graph / name)


def test_fused_projection_shares_its_a(tiny_phi3, tmp_path):
    awq_model = quantize(tiny_phi3, tmp_path)
    build_graph(awq_model, GraphOptions("cpu", "float", 1), tmp_path / "graph", RecordedProgress())
    adapter = save_random_adapter(awq_model, tmp_path / "a", ("qkv_proj",))
    graft_adapter(tmp_path / "graph", adapter, tmp_path / "out", "travel")
    names = [value.name for value in open_graph(tmp_path / "out").graph.inputs if ".layers.0.self_attn" in value.name]
    assert names == [
        "model.layers.0.self_attn.qkv_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.lora_B.weight",
        "model.layers.0.self_attn.k_proj.lora_B.weight",
        "model.layers.0.self_attn.v_proj.lora_B.weight",
    ]


def test_two_adapters_of_different_rank_serve_on_one_base(llama, tmp_path):
    adapters = {
        "travel": save_random_adapter(llama.awq_model, tmp_path / "a", ("q_proj", "down_proj"), r=4, alpha=8, seed=1),
        "cooking": save_random_adapter(llama.awq_model, tmp_path / "b", ("q_proj", "down_proj"), r=16, alpha=4, seed=2),
    }
    for name, adapter in adapters.items():
        graft_adapter(llama.graph, adapter, tmp_path / name, name)
    assert sha256_of(tmp_path / "travel" / "model.onnx") == sha256_of(tmp_path / "cooking" / "model.onnx")
    file = "adapters/cooking.onnx_adapter"
    (tmp_path / "travel" / file).write_bytes((tmp_path / "cooking" / file).read_bytes())
    for name, adapter in adapters.items():
        expected = torch_logits(llama.awq_model, IDS, adapter)
        assert np.abs(expected - onnx_logits(tmp_path / "travel", IDS, name)).max() < 1e-4


def test_genai_switches_adapters_on_one_base(llama, tmp_path):
    import onnxruntime_genai as og

    adapters = {
        name: save_random_adapter(llama.awq_model, tmp_path / f"peft-{name}", ("v_proj", "up_proj"), seed=seed)
        for seed, name in enumerate(("travel", "cooking"), start=5)
    }
    for name, adapter in adapters.items():
        graft_adapter(llama.graph, adapter, tmp_path / name, name)
    model = og.Model(str(tmp_path / "travel"))
    loaded = og.Adapters(model)
    for name in adapters:
        loaded.load(str(tmp_path / name / "adapters" / f"{name}.onnx_adapter"), name)
    found = {}
    for name in ("travel", "cooking", None):
        generator = _generator(og, model)
        if name is not None:
            generator.set_active_adapter(loaded, name)
        generator.append_tokens(np.array(IDS, np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        found[name] = list(map(int, generator.get_sequence(0)))
        assert found[name] == _greedy(llama.awq_model, adapters.get(name), len(found[name]))
    assert len({tuple(tokens) for tokens in found.values()}) == 3


def test_scale_follows_rslora(llama, tmp_path):
    adapter = save_random_adapter(llama.awq_model, tmp_path / "a", ("o_proj",), r=4, use_rslora=True)
    graft_adapter(llama.graph, adapter, tmp_path / "out", "travel")
    expected = torch_logits(llama.awq_model, IDS, adapter)
    assert np.abs(expected - onnx_logits(tmp_path / "out", IDS, "travel")).max() < 1e-4


def test_graph_for_cuda_gets_a_float16_adapter(llama, tmp_path):
    build_graph(llama.awq_model, GraphOptions("cuda", "float", 1), tmp_path / "graph", RecordedProgress())
    adapter = save_random_adapter(llama.awq_model, tmp_path / "a", ("q_proj", "up_proj"))
    graft_adapter(tmp_path / "graph", adapter, tmp_path / "out", "travel")
    expected = torch_logits(llama.awq_model, IDS, adapter)
    found = onnx_logits(tmp_path / "out", IDS, "travel")  # the CPU runs float16, too
    assert np.abs(expected - found).max() < 0.1


def test_adapter_files_are_the_same_bytes_each_time(llama, tmp_path):
    adapter = save_random_adapter(llama.awq_model, tmp_path / "a", TARGETS["llama"])
    for name in ("first", "second"):
        graft_adapter(llama.graph, adapter, tmp_path / name, "travel")
    for file in ("model.onnx", "adapters/travel.onnx_adapter"):
        assert sha256_of(tmp_path / "first" / file) == sha256_of(tmp_path / "second" / file)


def test_adapter_of_another_model_is_an_error(llama, tiny_phi3, tmp_path):
    other = save_random_adapter(quantize(tiny_phi3, tmp_path), tmp_path / "a", ("qkv_proj",))
    with pytest.raises(StageError, match=r"layers\.0\.self_attn\.qkv_proj: the adapter gives 192 .* the graph 128"):
        graft_adapter(llama.graph, other, tmp_path / "out", "travel")


def test_adapter_on_a_layer_that_is_not_int4_is_an_error(llama, tmp_path):
    adapter = save_random_adapter(llama.awq_model, tmp_path / "a", ("lm_head",))
    with pytest.raises(StageError, match=r"the adapter has a weight base_model\.model\.lm_head\."):
        read_adapter(adapter)


@pytest.mark.parametrize(
    ("variant", "setting"),
    [
        ({"use_dora": True}, "use_dora True"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_variant_of_lora_with_another_formula_is_an_error(llama, tmp_path, variant, setting):
    adapter = save_random_adapter(llama.awq_model, tmp_path / "a", ("q_proj",), **variant)
    with pytest.raises(StageError, match=f"the adapter has {setting}.* in adapter_config.json; accepted: None"):
        graft_adapter(llama.graph, adapter, tmp_path / "out", "travel")
    assert not (tmp_path / "out").exists()


def _generator(og, model):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(IDS[0]) + 8, do_sample=False)
    return og.Generator(model, params)


def _greedy(awq_model, adapter, length):
    """The tokens PyTorch generates greedily, `length` in all."""
    tokens = list(IDS[0])
    while len(tokens) < length:
        tokens.append(int(torch_logits(awq_model, [tokens], adapter)[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_on_float_layers_the_adapter_gives_the_logits_of_peft(architecture, request, tmp_path):
    awq_model = quantize(request.getfixturevalue(f"tiny_{architecture}"), tmp_path)
    build_graph(awq_model, GraphOptions("cpu", "float", 1, "fp32"), tmp_path / "graph", RecordedProgress())
    adapter = save_random_adapter(awq_model, tmp_path / "adapter", TARGETS[architecture])
    grafted = graft_adapter(tmp_path / "graph", adapter, tmp_path / "out", "travel")
    assert len(grafted) == 14
    for given, name in ((adapter, "travel"), (None, None)):
        expected, found = torch_logits(awq_model, IDS, given), onnx_logits(tmp_path / "out", IDS, name)
        assert np.abs(expected - found).max() < 1e-4


def test_adapter_of_a_float16_graph_is_in_float16(llama, tmp_path):
    build_graph(llama.awq_model, GraphOptions("cuda", "float", 1, "fp16"), tmp_path / "graph", RecordedProgress())
    adapter = save_random_adapter(llama.awq_model, tmp_path / "adapter", ("q_proj",))
    graft_adapter(tmp_path / "graph", adapter, tmp_path / "out", "travel")
    inputs = [value for value in open_graph(tmp_path / "out").graph.inputs if ".lora_" in (value.name or "")]
    assert {str(value.dtype) for value in inputs} == {"FLOAT16"}
