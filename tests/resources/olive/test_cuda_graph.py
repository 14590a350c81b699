"""A graph without branches answers as the one with them; shown on a CPU, which runs both."""

from __future__ import annotations

import json

import numpy as np
import pytest

from assets.onnx_graph import build_graph
from resources.errors import StageError
from resources.olive.cuda_graph import remove_branches
from resources.olive.onnx_model import GraphOptions
from resources.progress import RecordedProgress
from tests.onnx_folders import IDS, LONG_IDS, onnx_logits, open_graph, quantize, torch_logits

ORIGINAL = [[7 * index % 500 + 3 for index in range(128)]]  # the last length that takes the short factors


@pytest.fixture(scope="module")
def awq_model(tiny_phi3, tmp_path_factory):
    return quantize(tiny_phi3, tmp_path_factory.mktemp("phi3"))


@pytest.fixture(scope="module")
def graph(awq_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    build_graph(awq_model, GraphOptions("cpu", "float", 1), folder, RecordedProgress())
    return folder


def test_both_sets_of_factors_are_chosen_as_pytorch_chooses(awq_model, graph):
    import onnx_ir as ir

    model = open_graph(graph)
    assert remove_branches(model.graph) == 1
    assert not [node for node in model.graph if node.op_type == "If"]
    ir.save(model, graph / "model.onnx")
    for ids in (IDS, ORIGINAL, [[*ORIGINAL[0], 9]], LONG_IDS):
        assert np.abs(torch_logits(awq_model, ids) - onnx_logits(graph, ids)).max() < 1e-4


def test_a_graph_for_cuda_has_no_branch_and_is_to_be_captured(awq_model, tmp_path):
    build_graph(awq_model, GraphOptions("cuda", "int8", 4), tmp_path, RecordedProgress())
    assert not [node for node in open_graph(tmp_path).graph if node.op_type == "If"]
    config = json.loads((tmp_path / "genai_config.json").read_text())
    assert config["model"]["decoder"]["session_options"]["provider_options"] == [{"cuda": {"enable_cuda_graph": "1"}}]


def test_a_graph_without_branches_stays_as_it_is(tiny_llama, tmp_path):
    folder = tmp_path / "graph"
    build_graph(quantize(tiny_llama, tmp_path), GraphOptions("cpu", "int8", 4), folder, RecordedProgress())
    model = open_graph(folder)
    before = [node.name for node in model.graph]
    assert remove_branches(model.graph) == 0
    assert [node.name for node in model.graph] == before


def test_other_control_flow_is_an_error(graph):
    import onnx_ir as ir

    model = open_graph(graph)
    node = next(iter(model.graph))
    model.graph.insert_before(node, ir.node("Loop", [], attributes={}, name="/model/loop"))
    with pytest.raises(StageError, match=r"/model/loop is control flow \(Loop\)"):
        remove_branches(model.graph)
