"""Graphs for other providers and precisions: built where they can be, refused before anything runs where not."""

from __future__ import annotations

import json

from orchestration.recorded import SqliteRecords
from resources.store.store import Store


def artifact(project, stage):
    recorded = SqliteRecords(project.home).histories(["tiny"])["tiny"].stages[stage]
    return Store(project.home).open(recorded.data_version)


def test_graph_that_cannot_run_here_is_built_and_nothing_else_begins(project):
    project.edit("onnx_model", provider="webgpu", device="gpu")
    project.edit("dataset", seed=3)
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 2
    for words in ("tiny.yaml: onnx_model.provider", "webgpu, which ONNX Runtime", "CPUExecutionProvider", "--select"):
        assert words in done.stderr
    assert project.plan()["dataset"]["status"] == "run"  # nothing ran
    assert project.run("--select", "onnx_model")["onnx_model"] == "computed"
    assert json.loads((artifact(project, "onnx_model") / "graph.json").read_text())["provider"] == "webgpu"
    asked = project.press("chat", "tiny", "Hi")
    assert asked.returncode == 2
    assert "webgpu, which ONNX Runtime" in asked.stderr and "Traceback" not in asked.stderr


def test_codes_that_would_be_quantized_twice_are_refused(project):
    project.edit("onnx_model", precision="int8")
    done = project.press("plan", "tiny")
    assert done.returncode == 2
    assert "tiny.yaml: onnx_model.precision: found int8, and awq_model.bits is 4" in done.stderr


def test_float_graph_is_evaluated_to_the_same_tokens_as_pytorch(project):
    project.edit("onnx_model", precision="fp32")
    outcomes = project.run()
    assert [outcomes[name] for name in ("lora_adapter", "onnx_model", "eval_report")] == ["fresh", *["computed"] * 2]
    report = json.loads((artifact(project, "eval_report") / "report.json").read_text())
    assert report["parity"]["shipped"]["agreement"] == 1 and report["parity"]["shipped_base"]["agreement"] == 1


def test_int8_codes_go_through_every_stage(project):
    project.edit("awq_model", bits=8)
    project.edit("onnx_model", precision="int8")
    outcomes = project.run()
    assert outcomes.pop("dataset") == "fresh"
    assert set(outcomes.values()) == {"computed"}
    assert json.loads((artifact(project, "onnx_model") / "graph.json").read_text())["bits"] == [8]
    parity = json.loads((artifact(project, "eval_report") / "report.json").read_text())["parity"]
    assert parity["exact"]["agreement"] == 1 and parity["exact_base"]["agreement"] == 1
    assert parity["shipped"]["kl_nats"] < 0.01


def test_passes_that_olive_refuses_end_the_run_before_it_begins(project):
    project.edit("dataset", seed=3)
    project.edit("onnx_model", olive_passes=[{"type": "OnnxPeepholeOptimizer", "thoroughly": True}])
    assert project.plan()["onnx_model"]["status"] == "maybe"  # a plan asks for names only
    done = project.press("run", "tiny")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "tiny.yaml: onnx_model.olive_passes[0].thoroughly: found an unknown parameter; accepted: " in done.stderr
    assert project.plan()["dataset"]["status"] == "run"  # nothing ran
    project.edit("onnx_model", olive_passes=[{"type": "Peephole"}])
    planned = project.press("plan", "tiny")
    assert planned.returncode == 2
    assert "tiny.yaml: onnx_model.olive_passes[0].type: found 'Peephole'; accepted: " in planned.stderr


def test_passes_that_are_named_run_and_stay_fresh(project):
    project.edit("onnx_model", olive_passes=[{"type": "OnnxPeepholeOptimizer"}])
    outcomes = project.run()
    assert [outcomes[name] for name in ("lora_adapter", "onnx_model", "eval_report")] == [
        "fresh",
        "computed",
        "computed",
    ]
    assert json.loads((artifact(project, "onnx_model") / "graph.json").read_text())["olive_passes"]
    assert set(project.run().values()) == {"fresh"}
