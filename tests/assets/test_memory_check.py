"""A stage that will not fit says so before it loads anything: what it needs, what is missing, and what lowers it."""

from __future__ import annotations

import json
import re

import pytest

from assets.experiment import Experiment
from assets.memory_check import Memory, check_gpu_memory, check_host_memory, check_memory
from resources.errors import StageError
from resources.gpu import Device
from tests.resources.test_memory_need import GB, PHI35

STAGES = ("awq_model", "lora_adapter", "eval_report")


@pytest.fixture
def inputs(tmp_path):
    """What the stages find of a model of Phi-3.5-mini's shape, and rows of about 200 tokens."""
    for name in ("base_model", "awq_model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(PHI35))
    (tmp_path / "dataset").mkdir()
    row = {"prompt": "Where to go?", "response": "word " * 150}
    (tmp_path / "dataset" / "train.jsonl").write_text((json.dumps(row) + "\n") * 3)
    return {name: tmp_path / name for name in ("base_model", "awq_model", "dataset")}


def experiment(tmp_path, **sections):
    document = {
        "base_model": {"folder": "base_model"},
        "dataset": {"path": "nowhere"},
        "registered_model": {"name": "tiny"},
        **sections,
    }
    return Experiment.model_validate({"name": "tiny", "root": str(tmp_path), **document})


def gpu(free):
    return Memory(round(free * GB), 24 * GB, "GPU memory (NVIDIA A10)")


def told(check, *arguments):
    with pytest.raises(StageError) as caught:
        check(*arguments)
    return str(caught.value)


def test_what_fits_passes(inputs, tmp_path):
    for stage in STAGES:
        check_gpu_memory(stage, experiment(tmp_path), inputs, Memory(80 * GB, 80 * GB, "GPU memory (NVIDIA H100)"))
        for device in ("cpu", "cuda"):
            check_host_memory(stage, experiment(tmp_path), inputs, device, Memory(64 * GB, 64 * GB, "memory"))


def test_awq_and_its_report_fit_a_card_that_does_not_hold_the_model(inputs, tmp_path):
    for stage in ("awq_model", "eval_report"):
        check_gpu_memory(stage, experiment(tmp_path), inputs, gpu(6))


def test_what_is_missing_is_told(inputs, tmp_path):
    text = told(check_gpu_memory, "awq_model", experiment(tmp_path), inputs, gpu(1))
    assert re.match(r"awq_model: it needs about \d\.\d GB of GPU memory \(NVIDIA A10\) \(one layer", text)
    assert "and 1.0 GB of 24.0 GB are free: " in text and "GB are missing" in text


def test_awq_says_which_calibration_would_fit(inputs, tmp_path):
    asked = {"samples": 128, "tokens": 512, "measure_samples": 0}
    text = told(check_gpu_memory, "awq_model", experiment(tmp_path, awq_model=asked), inputs, gpu(3))
    found = re.search(r"awq_model\.samples: (\d+)", text)
    assert found is not None
    fitting = asked | {"samples": int(found[1])}
    check_gpu_memory("awq_model", experiment(tmp_path, awq_model=fitting), inputs, gpu(3))


def test_each_value_that_lora_is_told_to_take_fits(inputs, tmp_path):
    asked = {"r": 64, "batch_size": 16, "max_tokens": 256, "target_modules": ["qkv_proj", "gate_up_proj", "down_proj"]}
    text = told(check_gpu_memory, "lora_adapter", experiment(tmp_path, lora_adapter=asked), inputs, gpu(11))
    found = dict(re.findall(r"lora_adapter\.(\w+): (\d+)", text))
    assert {"batch_size", "max_tokens"} <= found.keys()
    for name, value in found.items():
        lowered = experiment(tmp_path, lora_adapter=asked | {name: int(value)})
        check_gpu_memory("lora_adapter", lowered, inputs, gpu(11))


def test_rows_that_are_short_need_little_however_long_they_may_be(inputs, tmp_path):
    """max_tokens leaves longer rows out; where there are none it costs nothing."""
    check_gpu_memory("lora_adapter", experiment(tmp_path, lora_adapter={"max_tokens": 100_000}), inputs, gpu(16))


def test_where_nothing_that_can_be_set_helps_the_cpu_is_left(inputs, tmp_path):
    for stage in ("lora_adapter", "eval_report"):
        assert "Set compute.device: cpu, or free memory" in told(
            check_gpu_memory, stage, experiment(tmp_path), inputs, gpu(0.2)
        )


@pytest.mark.parametrize(("stage", "device"), [(stage, device) for stage in STAGES for device in ("cpu", "cuda")])
def test_a_machine_without_memory_for_the_weights_says_so_instead_of_being_killed(inputs, tmp_path, stage, device):
    room = Memory(4 * GB, 8 * GB, "the machine's memory")
    text = told(check_host_memory, stage, experiment(tmp_path), inputs, device, room)
    assert text.startswith(f"{stage}: it needs about ") and "of the machine's memory (weights" in text
    assert "Take a smaller base model or a machine with more memory" in text


def test_models_that_are_not_known_are_left_to_the_stage(inputs, tmp_path):
    for text in ("{}", "no JSON", "[1]"):
        (inputs["awq_model"] / "config.json").write_text(text)
        check_gpu_memory("lora_adapter", experiment(tmp_path), inputs, gpu(0))
    (inputs["base_model"] / "config.json").unlink()
    check_host_memory("awq_model", experiment(tmp_path), inputs, "cpu", gpu(0))
    check_memory("dataset", experiment(tmp_path), {}, Device("cpu"))


def test_the_memory_of_this_machine_is_asked(inputs, tmp_path):
    huge = PHI35 | {"num_hidden_layers": 10**6}
    (inputs["awq_model"] / "config.json").write_text(json.dumps(huge))
    text = told(check_memory, "lora_adapter", experiment(tmp_path), inputs, Device("cpu"))
    assert "of the machine's memory" in text
