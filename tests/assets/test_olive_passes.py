"""An Olive user's own workflow as an asset: real passes in awq_model and onnx_model, held to PyTorch afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from assets.awq_model import AwqModel
from assets.experiment import Experiment
from assets.lora_adapter import LoraAdapter
from assets.onnx_graph import ExactOnnxGraph, OnnxGraph
from assets.onnx_model import OnnxModel
from resources.calibration_text import read
from resources.errors import ConfigurationError, StageError
from resources.olive.graft import graft_adapter
from resources.store.digests import sha256_of
from tests.lora_training import write_dataset
from tests.onnx_folders import IDS, onnx_logits, quantize, save_random_adapter, torch_logits
from tests.pressed import produce

FIXED = {"type": "DynamicToFixedShape", "dim_param": ["batch_size"], "dim_value": [1]}
RTN = {"type": "Rtn", "group_size": 16}


def open_experiment(base, root, **sections):
    awq = {"group_size": 16, "samples": 2, "tokens": 64, "ratios": 3, "measure_samples": 1}
    return Experiment(
        name="mine",
        root=root,
        base_model={"folder": str(base)},
        dataset={"path": "x"},
        awq_model=awq | sections.get("awq_model", {}),
        lora_adapter={
            "r": 4,
            "steps": 2,
            "batch_size": 2,
            "warmup_steps": 0,
            "target_modules": ["q_proj", "down_proj"],
        },
        onnx_model={"adapter": "mine"} | sections.get("onnx_model", {}),
        registered_model={"name": "mine"},
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text(read("python-docs", folder), encoding="utf-8")
    return folder


def quantization(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]


WORKFLOWS = {
    "rtn": ([RTN], [4]),
    "gptq": ([{"type": "Gptq", "group_size": 16}], [4]),
    "clip": ([{"type": "AutoClip", "group_size": 16}, RTN], [4]),
    "rotated": ([{"type": "QuaRot"}, {"type": "OlivePressAwq"}], [4]),
    "mixed": ([{"type": "SelectiveMixedPrecision", "algorithm": "k_quant_mixed"}, {"type": "OlivePressAwq"}], [4, 8]),
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_becomes_an_awq_model_that_every_later_stage_takes(name, tiny_llama, text, tmp_path):
    passes, bits = WORKFLOWS[name]
    experiment = open_experiment(tiny_llama, tmp_path, awq_model={"olive_passes": passes})
    made = {"base_model": tiny_llama, "calibration_text": text, "dataset": write_dataset(tmp_path / "dataset")}
    for recipe in (AwqModel, LoraAdapter, OnnxGraph, ExactOnnxGraph, OnnxModel):
        made[recipe.name] = produce(recipe(experiment), tmp_path / recipe.name, made)
    assert quantization(made["awq_model"])["quant_method"] == "olive"
    assert json.loads((made["onnx_model"] / "graph.json").read_text())["bits"] == bits
    graft_adapter(made["onnx_graph_exact"], made["lora_adapter"], tmp_path / "exact", "mine")
    expected = torch_logits(made["awq_model"], IDS, made["lora_adapter"])
    assert np.abs(expected - onnx_logits(tmp_path / "exact", IDS, "mine")).max() < 1e-3
    facts = AwqModel(experiment).facts(made["awq_model"])
    assert "Olive passes " + ", ".join(one["type"] for one in passes) in facts.texts["summary"]
    assert ("layers" in facts.tables) == any(one["type"] == "OlivePressAwq" for one in passes)


def test_a_workflow_that_does_not_quantize_is_an_error_that_says_what_does(tiny_llama, text, tmp_path):
    stage = AwqModel(open_experiment(tiny_llama, tmp_path, awq_model={"olive_passes": [{"type": "QuaRot"}]}))
    with pytest.raises(StageError, match=r"after olive_passes \(QuaRot\) the model has no quantization.*Rtn, Gptq"):
        produce(stage, tmp_path / "made", {"base_model": tiny_llama, "calibration_text": text})


def test_bits_of_a_workflow_are_held_to_the_precision(tiny_llama, tmp_path):
    sections = {"awq_model": {"olive_passes": [RTN | {"bits": 8}]}, "onnx_model": {"precision": "int4"}}
    experiment = open_experiment(tiny_llama, tmp_path, **sections)
    OnnxModel(experiment).check()
    made = {"awq_model": quantize(tiny_llama, tmp_path, bits=8)}
    made["lora_adapter"] = save_random_adapter(made["awq_model"], tmp_path / "adapter", ("q_proj",))
    made["onnx_graph"] = produce(OnnxGraph(experiment), tmp_path / "onnx_graph", made)
    with pytest.raises(StageError, match=r"layers of the graph are int8, and onnx_model\.precision is int4"):
        produce(OnnxModel(experiment), tmp_path / "onnx_model", made)


@pytest.fixture(scope="module")
def quantized(tiny_llama, tmp_path_factory):
    root = tmp_path_factory.mktemp("quantized")
    made = {"awq_model": quantize(tiny_llama, root)}
    return made | {"lora_adapter": save_random_adapter(made["awq_model"], root / "adapter", ("q_proj", "down_proj"))}


def build(quantized, base, root, passes, **onnx_model):
    experiment = open_experiment(base, root, onnx_model=onnx_model | {"olive_passes": passes})
    made = quantized | {"onnx_graph": produce(OnnxGraph(experiment), root / "onnx_graph", quantized)}
    return produce(OnnxModel(experiment), root / "onnx_model", made), OnnxModel(experiment)


GRAPHS = {
    "peephole": ([{"type": "OnnxPeepholeOptimizer"}], {}, 1e-4),
    "qdq": ([{"type": "MatMulNBitsToQDQ"}], {}, 1.0),  # ONNX Runtime computes these with int8 activations
    "two": ([{"type": "OnnxPeepholeOptimizer"}, FIXED], {}, 1e-4),
    "two on floats": ([FIXED, {"type": "OnnxPeepholeOptimizer"}], {"precision": "fp32"}, 1e-4),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_passes_on_the_graph_leave_one_that_takes_the_adapter(name, quantized, tiny_llama, tmp_path):
    passes, spec, far = GRAPHS[name]
    spec = {"head": "float", "accuracy_level": 1} | spec
    folder, stage = build(quantized, tiny_llama, tmp_path, passes, **spec)
    for adapter, called in ((None, None), (quantized["lora_adapter"], "mine")):
        expected, found = torch_logits(quantized["awq_model"], IDS, adapter), onnx_logits(folder, IDS, called)
        assert np.abs(expected - found).max() < far
    arrived = json.loads((folder / "graph.json").read_text())
    assert arrived["olive_passes"] == [one["type"] for one in passes]
    assert arrived["layers"] == 14 and len(arrived["grafted"]) == 4
    assert "after " + passes[0]["type"] in stage.facts(folder).texts["options"]
    names = {file.name for file in folder.iterdir()}
    assert {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json"} <= names
    assert not [one for one in names if one.startswith(".")]


def test_a_graph_after_passes_is_the_same_bytes_in_another_place(quantized, tiny_llama, tmp_path):
    places = (tmp_path / "one", tmp_path / "another")
    made = [build(quantized, tiny_llama, place, [{"type": "MatMulNBitsToQDQ"}])[0] for place in places]
    one, other = ({file.name: sha256_of(file) for file in folder.iterdir() if file.is_file()} for folder in made)
    assert one == other


@pytest.mark.parametrize(
    ("passes", "told"),
    [
        (
            [{"type": "GraphSurgeries", "surgeries": [
                {"surgeon": "RenameInputs", "old_names": ["input_ids"], "new_names": ["ids"]}]}],
            r"after olive_passes \(GraphSurgeries\) ONNX Runtime GenAI does not answer with the graph",
        ),
        ([{"type": "OnnxBlockWiseRtnQuantization"}], "does not answer with the graph: Model output was not found"),
        ([{"type": "OnnxDynamicQuantization"}], "leave no MatMul or MatMulNBits under the name of layers.0.self_attn"),
    ],
)  # fmt: skip
def test_passes_that_break_the_graph_are_an_error_that_names_them(passes, told, quantized, tiny_llama, tmp_path):
    with pytest.raises(StageError, match=told):
        build(quantized, tiny_llama, tmp_path, passes, precision="fp32", head="float", accuracy_level=1)


def test_the_exact_graph_has_no_passes(tiny_llama, tmp_path):
    plain, other = (
        ExactOnnxGraph(open_experiment(tiny_llama, tmp_path, onnx_model={"olive_passes": passes})).key(
            {"awq_model": "a"}
        )
        for passes in ([], [{"type": "OnnxPeepholeOptimizer"}])
    )
    assert plain.id == other.id


def test_mistakes_are_told_by_the_stages(tiny_llama, tmp_path):
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: awq_model\.olive_passes\[0\]\.type: found 'Rtm'"):
        AwqModel(open_experiment(tiny_llama, tmp_path, awq_model={"olive_passes": [{"type": "Rtm"}]})).check()
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: awq_model\.olive_passes\[0\]\.group: found an unknown"):
        AwqModel(
            open_experiment(tiny_llama, tmp_path, awq_model={"olive_passes": [{"type": "Rtn", "group": 3}]})
        ).check_run(True)
