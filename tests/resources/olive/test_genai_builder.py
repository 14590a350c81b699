"""The graph computes what PyTorch computes on the same dequantized weights, for each architecture that is pressed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from assets.onnx_graph import build_graph
from resources.errors import StageError
from resources.olive.awq_folder import save_dequantized
from resources.olive.graph_checks import check_codes, check_options, check_weights, read_arrived
from resources.olive.onnx_model import GraphOptions, builder_options
from resources.olive.projections import quantized_projections
from resources.olive.unfused import has_fused_projections, write_unfused
from resources.onnx_providers import providers_of
from resources.progress import RecordedProgress
from tests.onnx_folders import IDS, LONG_IDS, onnx_logits, open_graph, quantize, torch_logits
from tests.tiny_models import ARCHITECTURES

EXACT = GraphOptions("cpu", "float", 1)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pressed(request, tmp_path_factory):
    """An olive-quantized model and its exact graph."""
    folder = tmp_path_factory.mktemp(request.param)
    awq_model = quantize(request.getfixturevalue(f"tiny_{request.param}"), folder)
    build_graph(awq_model, EXACT, folder / "graph", RecordedProgress())
    return SimpleNamespace(architecture=request.param, awq_model=awq_model, graph=folder / "graph")


@pytest.fixture(scope="module")
def quantized_llama(tiny_llama, tmp_path_factory):
    return quantize(tiny_llama, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def quantized_phi3(tiny_phi3, tmp_path_factory):
    return quantize(tiny_phi3, tmp_path_factory.mktemp("phi3"))


def test_exact_graph_gives_the_logits_of_pytorch(pressed):
    expected, found = torch_logits(pressed.awq_model, IDS), onnx_logits(pressed.graph, IDS)
    assert (expected.argmax(-1) == found.argmax(-1)).all()
    assert np.abs(expected - found).max() < 1e-4


def test_long_sequence_gives_the_logits_of_pytorch(pressed):
    expected, found = torch_logits(pressed.awq_model, LONG_IDS), onnx_logits(pressed.graph, LONG_IDS)
    assert np.abs(expected - found).max() < 1e-4


def test_biases_are_not_lost(pressed):
    names = {node.name for node in open_graph(pressed.graph).graph}
    assert ("/model/layers.1/attn/k_proj/Add" in names) == (pressed.architecture == "qwen2")


def test_graph_holds_the_int4_codes_of_the_awq_model(pressed):
    tensors = load_file(pressed.awq_model / "model.safetensors")
    nodes = dict(quantized_projections(open_graph(pressed.graph).graph))
    down = tensors["model.layers.1.mlp.down_proj.qweight"].numpy()
    assert len(nodes) == 14
    assert nodes["layers.1.mlp.down_proj"].inputs[1].const_value.numpy().tobytes() == down.tobytes()
    if pressed.architecture == "phi3":
        fused = tensors["model.layers.0.self_attn.qkv_proj.qzeros"].numpy()
        assert nodes["layers.0.self_attn.k_proj"].inputs[3].const_value.numpy().tobytes() == fused[64:128].tobytes()


def test_graph_folder_is_complete_and_names_no_place(pressed, tmp_path_factory):
    names = {file.name for file in pressed.graph.iterdir()}
    assert {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "chat_template.jinja"} <= names
    place = str(tmp_path_factory.getbasetemp()).encode()
    assert not [
        file.name for file in pressed.graph.iterdir() if place in file.read_bytes() or b"/tmp" in file.read_bytes()
    ]


def test_graph_names_the_builders_release_and_no_commit_of_ours(pressed):
    version = open_graph(pressed.graph).producer_version
    assert version
    assert "+" not in version


@pytest.mark.parametrize(("head", "accuracy_level"), [("int4", 1), ("int8", 4), ("float", 4)])
def test_options_arrive(quantized_llama, tmp_path, head, accuracy_level):
    progress = RecordedProgress()
    build_graph(quantized_llama, GraphOptions("cpu", head, accuracy_level), tmp_path, progress)
    arrived = json.loads((tmp_path / "graph.json").read_text())
    assert arrived == {
        "provider": "cpu", "head": head, "embedding": head, "accuracy_levels": [accuracy_level], "bits": [4],
        "io_type": "float32", "layers": 14,
    }  # fmt: skip
    assert f"head {head}" in progress.lines[-1]
    expected, found = torch_logits(quantized_llama, IDS), onnx_logits(tmp_path, IDS)
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float_graph_holds_the_dequantized_weights(architecture, request, tmp_path):
    awq_model = quantize(request.getfixturevalue(f"tiny_{architecture}"), tmp_path)
    build_graph(awq_model, GraphOptions("cpu", "float", 1, "fp32"), tmp_path / "graph", RecordedProgress())
    arrived = json.loads((tmp_path / "graph" / "graph.json").read_text())
    assert (arrived["bits"], arrived["accuracy_levels"], arrived["io_type"], arrived["layers"]) == (
        [],
        [],
        "float32",
        14,
    )
    expected, found = torch_logits(awq_model, IDS), onnx_logits(tmp_path / "graph", IDS)
    assert np.abs(expected - found).max() < 1e-4
    assert not list((tmp_path / "graph").glob(".*"))


def test_float_graph_with_another_weight_is_an_error(quantized_phi3, tmp_path):
    build_graph(quantized_phi3, GraphOptions("webgpu", "float", 1, "fp16"), tmp_path / "graph", RecordedProgress())
    save_dequantized(quantized_phi3, tmp_path / "float")
    check_weights(open_graph(tmp_path / "graph").graph, tmp_path / "float")
    file = tmp_path / "float" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.self_attn.qkv_proj.weight"][100, 3] += 0.1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"weights of layers\.1\.self_attn\.k_proj are not those of the awq model"):
        check_weights(open_graph(tmp_path / "graph").graph, tmp_path / "float")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_int8_codes_arrive_as_they_are(architecture, request, tmp_path):
    awq_model = quantize(request.getfixturevalue(f"tiny_{architecture}"), tmp_path, bits=8)
    build_graph(awq_model, EXACT, tmp_path / "graph", RecordedProgress())
    assert json.loads((tmp_path / "graph" / "graph.json").read_text())["bits"] == [8]
    assert np.abs(torch_logits(awq_model, IDS) - onnx_logits(tmp_path / "graph", IDS)).max() < 1e-4


@pytest.mark.parametrize("provider", ["dml", "webgpu"])
@pytest.mark.parametrize("precision", [None, "fp16"])
def test_graph_for_another_provider_names_it_and_computes_in_float16(quantized_llama, tmp_path, provider, precision):
    head, level = ("int8", 4) if precision is None else ("float", 1)
    build_graph(quantized_llama, GraphOptions(provider, head, level, precision), tmp_path, RecordedProgress())
    arrived = json.loads((tmp_path / "graph.json").read_text())
    assert (arrived["provider"], arrived["io_type"], arrived["layers"]) == (provider, "float16", 14)
    assert providers_of(json.loads((tmp_path / "genai_config.json").read_text())) == [provider]


def test_graph_for_cuda_computes_in_float16(quantized_llama, tmp_path):
    build_graph(quantized_llama, GraphOptions("cuda", "int8", 4), tmp_path, RecordedProgress())
    session = json.loads((tmp_path / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    assert "cuda" in session["provider_options"][0]
    assert "intra_op_num_threads" not in session  # that of ONNX Runtime GenAI: one spinning thread beside a GPU
    assert json.loads((tmp_path / "graph.json").read_text())["io_type"] == "float16"


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (GraphOptions("cpu", "int8", 1), "head int8"),
        (GraphOptions("cpu", "float", 4), "accuracy_level 4"),
        (GraphOptions("cuda", "float", 1), "provider cuda"),
        (GraphOptions("webgpu", "float", 1), "provider webgpu"),
        (GraphOptions("webgpu", "float", 1, "fp16"), "accuracy_level 1"),
    ],
)
def test_option_that_did_not_arrive_is_an_error(quantized_llama, tmp_path, asked, place):
    build_graph(quantized_llama, EXACT, tmp_path, RecordedProgress())
    arrived = read_arrived(open_graph(tmp_path).graph)
    check_options(arrived, EXACT)
    with pytest.raises(StageError, match=f"onnx_graph: the model builder was asked for {place} and its graph has"):
        check_options(arrived, asked)


def test_code_of_another_model_is_an_error(quantized_llama, tmp_path):
    build_graph(quantized_llama, EXACT, tmp_path, RecordedProgress())
    graph = open_graph(tmp_path).graph
    tensor = dict(quantized_projections(graph))["layers.0.mlp.up_proj"].inputs[1].const_value
    offset = tensor.offset
    del graph, tensor
    data = bytearray((tmp_path / "model.onnx.data").read_bytes())
    data[offset] ^= 1
    (tmp_path / "model.onnx.data").write_bytes(data)
    with pytest.raises(
        StageError, match=r"the graph's qweight of layers\.0\.mlp\.up_proj are not those of the awq model"
    ):
        check_codes(open_graph(tmp_path).graph, quantized_llama)


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_symmetric_codes_give_the_logits_of_pytorch(architecture, request, tmp_path):
    awq_model = quantize(request.getfixturevalue(f"tiny_{architecture}"), tmp_path, symmetric=True)
    build_graph(awq_model, EXACT, tmp_path / "graph", RecordedProgress())
    assert np.abs(torch_logits(awq_model, IDS) - onnx_logits(tmp_path / "graph", IDS)).max() < 1e-4


def test_fused_projection_with_settings_of_its_own_keeps_them(tiny_phi3, tmp_path):
    overrides = {
        "model.layers.0.self_attn.qkv_proj": {"bits": 8},
        "model.layers.1.mlp.gate_up_proj": {"group_size": 16},
    }
    awq_model = quantize(tiny_phi3, tmp_path, overrides=overrides)
    build_graph(awq_model, EXACT, tmp_path / "graph", RecordedProgress())
    assert json.loads((tmp_path / "graph" / "graph.json").read_text())["bits"] == [4, 8]
    assert np.abs(torch_logits(awq_model, IDS) - onnx_logits(tmp_path / "graph", IDS)).max() < 1e-4


def test_unfused_checkpoint_keeps_every_code(quantized_phi3, tmp_path):
    write_unfused(quantized_phi3, tmp_path / "apart")
    fused, apart = (load_file(folder / "model.safetensors") for folder in (quantized_phi3, tmp_path / "apart"))
    for kind in ("qweight", "scales", "qzeros"):
        pieces = [apart[f"model.layers.1.mlp.{part}.{kind}"].numpy().tobytes() for part in ("gate_proj", "up_proj")]
        assert b"".join(pieces) == fused[f"model.layers.1.mlp.gate_up_proj.{kind}"].numpy().tobytes()
    assert not has_fused_projections(tmp_path / "apart")


def test_checkpoint_that_does_not_fit_its_configuration_is_an_error(quantized_phi3, tmp_path):
    write_unfused(quantized_phi3, tmp_path / "wrong")
    for file in quantized_phi3.iterdir():
        (tmp_path / "wrong" / file.name).write_bytes(file.read_bytes())
    config = json.loads((quantized_phi3 / "config.json").read_text())
    (tmp_path / "wrong" / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(StageError, match=r"gate_up_proj\.\w+ has 256 rows and config\.json asks for 192"):
        build_graph(tmp_path / "wrong", EXACT, tmp_path / "graph", RecordedProgress())


def test_builder_still_cannot_take_fused_zero_points_apart(quantized_phi3, tmp_path):
    """Fails when a release of the builder can: write_unfused and has_fused_projections can go then."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    from resources.olive.passes.genai_builder import build

    build(quantized_phi3, tmp_path, "int4", "cpu", builder_options(EXACT))
    with pytest.raises(Fail, match="zero_points initializer shape"):
        onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))


def test_standard_output_stays_the_callers(quantized_llama, tmp_path, capfd):
    build_graph(quantized_llama, EXACT, tmp_path, RecordedProgress())
    assert capfd.readouterr().out == ""
