"""The lora_adapter stage: its key, its checks, what people see of an artifact."""

from __future__ import annotations

import json

import pytest

from resources.errors import ConfigurationError
from tests.lora_training import Training, open_stage, quantize, write_dataset


@pytest.fixture(scope="module")
def artifact(tiny_llama, tmp_path_factory):
    place = tmp_path_factory.mktemp("adapter")
    awq_model, dataset = quantize(tiny_llama, place / "awq_model"), write_dataset(place / "dataset")
    return Training(awq_model, dataset, place / "artifact", place / "scratch", {"steps": 40}).run()


def test_facts_show_the_curve_as_numbers_table_plot_and_text(artifact, tmp_path):
    facts = open_stage(tmp_path).facts(artifact)
    numbers = facts.numbers
    assert numbers["last_loss"] < numbers["first_loss"]
    assert (numbers["steps"], numbers["rows"], numbers["dropped_rows"]) == (40, 12, 0)
    # rank 4 on two layers: q, k, v, o of 64 x 64 or 64 x 32, gate, up, down of 64 x 128
    assert numbers["trainable_parameters"] == 2 * 4 * (128 + 96 + 96 + 128 + 3 * 192)
    table = facts.tables["training_curve"]
    assert len(table) == 25 and table[0]["step"] == 1 and table[-1]["step"] == 40
    assert facts.plots["training_curve"].startswith(b"\x89PNG")
    assert f"{numbers['first_loss']:.2f} nats a token at first" in facts.texts["summary"]


def test_the_text_tells_of_rows_left_out(artifact, tmp_path):
    curve = json.loads((artifact / "training_curve.json").read_text())
    (tmp_path / "training_curve.json").write_text(json.dumps(curve | {"dropped_rows": 3}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "3 rows are longer than lora_adapter.max_tokens" in open_stage(tmp_path).facts(tmp_path).texts["summary"]


def test_checkpoint_steps_leave_the_key_alone_and_r_does_not(tmp_path):
    inputs = {"awq_model": "a", "dataset": "b"}
    key = open_stage(tmp_path).key(inputs).id
    assert open_stage(tmp_path, checkpoint_steps=1).key(inputs).id == key
    assert open_stage(tmp_path, r=5).key(inputs).id != key


def test_a_warmup_as_long_as_the_training_is_an_error_before_anything_runs(tmp_path):
    with pytest.raises(ConfigurationError, match=r"tiny.yaml: lora_adapter.warmup_steps: found 24; accepted: 0 to 23"):
        open_stage(tmp_path, warmup_steps=24).check()
    open_stage(tmp_path, warmup_steps=23).check()
