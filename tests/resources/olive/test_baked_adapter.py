"""A graph that an adapter is baked into answers as the grafted one with that adapter active."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from assets.onnx_graph import build_graph
from resources.errors import StageError
from resources.genai import GenaiModel
from resources.olive.baked_adapter import bake_adapter, bake_graphs
from resources.olive.graft import graft_adapter
from resources.olive.onnx_model import GraphOptions
from resources.progress import RecordedProgress
from resources.teacher_forcing import TeacherForcedGraph
from tests.onnx_folders import IDS, onnx_logits, quantize, save_random_adapter

PROMPT = "What should I see in Lisbon?"


@pytest.fixture(scope="module")
def grafted(tiny_phi3, tmp_path_factory):
    """A folder with the adapters one (rank 4) and two (rank 2); the graph is for a CPU, which tests have."""
    folder = tmp_path_factory.mktemp("grafted")
    awq_model = quantize(tiny_phi3, folder)
    build_graph(awq_model, GraphOptions("cpu", "int8", 4), folder / "graph", RecordedProgress())
    for name, r in (("one", 4), ("two", 2)):
        adapter = save_random_adapter(awq_model, folder / name, ("qkv_proj", "down_proj"), r=r, seed=r)
        graft_adapter(folder / "graph", adapter, folder / f"with-{name}", name)
    shutil.copy(folder / "with-two" / "adapters" / "two.onnx_adapter", folder / "with-one" / "adapters")
    return folder / "with-one"


@pytest.fixture
def baked(grafted, tmp_path):
    folder = shutil.copytree(grafted, tmp_path / "baked")
    bake_graphs(grafted.with_name("graph"), folder, "one")
    return folder


def test_the_logits_are_those_of_the_active_adapter(baked, tmp_path):
    expected, base = onnx_logits(baked, IDS, "one"), onnx_logits(baked, IDS)
    (baked / "model-one.onnx").replace(baked / "model.onnx")
    assert np.abs(onnx_logits(baked, IDS) - expected).max() < 1e-5
    assert np.abs(base - expected).max() > 0.1


def test_the_report_forces_rows_through_the_graphs_that_answer(baked, grafted):
    (baked / "model.onnx").unlink()  # it answers for neither
    answering, expected = TeacherForcedGraph(baked), TeacherForcedGraph(grafted)
    for name in ("one", None):
        assert np.abs(answering.logits(IDS[0], name) - expected.logits(IDS[0], name)).max() < 1e-5


def test_the_weights_are_the_adapters_to_the_byte(baked):
    """They once were what lay in freed memory, as often as not."""
    import onnxruntime

    adapter = onnxruntime.AdapterFormat.read_adapter(str(baked / "adapters" / "one.onnx_adapter"))
    data = (baked / "model-one.onnx.data").read_bytes()
    for value in adapter.get_parameters().values():
        assert value.numpy().tobytes() in data


def test_the_graph_for_the_base_has_no_lora_inputs_and_its_logits(baked):
    import onnxruntime

    expected = onnx_logits(baked, IDS)
    (baked / "base.onnx").replace(baked / "model.onnx")
    session = onnxruntime.InferenceSession(str(baked / "model.onnx"))
    assert not [value.name for value in session.get_inputs() if "lora" in value.name]
    assert np.abs(onnx_logits(baked, IDS) - expected).max() < 1e-5


def test_the_bases_weights_are_in_one_file_for_both_graphs(baked):
    data = baked / "model-one.onnx.data"
    adapter = baked / "adapters" / "one.onnx_adapter"
    assert data.stat().st_size < adapter.stat().st_size + 4096 * 20
    assert (baked / "model-one.onnx").stat().st_size < 1.2 * (baked / "model.onnx").stat().st_size


def test_requests_switch_between_the_base_a_baked_adapter_and_an_active_one(baked, grafted):
    switching, active = GenaiModel(baked, "one"), GenaiModel(grafted)
    for name in ("one", None, "two", "one", None):
        switching.use_adapter(name)
        active.use_adapter(name)
        assert switching.generate(PROMPT, 12).text == active.generate(PROMPT, 12).text


def test_an_adapter_of_other_projections_is_an_error(baked, tiny_phi3, tmp_path):
    awq_model = quantize(tiny_phi3, tmp_path)
    other = save_random_adapter(awq_model, tmp_path / "other", ("o_proj",))
    build_graph(awq_model, GraphOptions("cpu", "int8", 4), tmp_path / "graph", RecordedProgress())
    graft_adapter(tmp_path / "graph", other, tmp_path / "with-other", "other")
    shutil.copy(tmp_path / "with-other" / "adapters" / "other.onnx_adapter", baked / "adapters")
    with pytest.raises(StageError, match=r"graph and adapter other do not have the same LoRA inputs: model\.layers"):
        bake_adapter(baked, "other")
