"""The LoRA pass on tiny olive-quantized models: what it learns, what it refuses, what a kill leaves."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resources.errors import ConfigurationError, StageError
from tests.lora_training import Training, quantize, write_dataset

PROJECT = Path(__file__).resolve().parents[3]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def awq_llama(tiny_llama, tmp_path_factory):
    return quantize(tiny_llama, tmp_path_factory.mktemp("awq_llama"))


@pytest.fixture(scope="module")
def awq_phi3(tiny_phi3, tmp_path_factory):
    return quantize(tiny_phi3, tmp_path_factory.mktemp("awq_phi3"))


@pytest.fixture(scope="module")
def awq_qwen2(tiny_qwen2, tmp_path_factory):
    return quantize(tiny_qwen2, tmp_path_factory.mktemp("awq_qwen2"))


@pytest.fixture
def training(awq_llama, dataset, tmp_path):
    """training(place, **spec) trains under tmp_path/place."""

    def open_training(place: str = "first", awq_model: Path = awq_llama, dataset: Path = dataset, **spec) -> Training:
        return Training(awq_model, dataset, tmp_path / place / "artifact", tmp_path / place / "scratch", spec)

    return open_training


def losses(folder: Path) -> list[float]:
    return [step["loss"] for step in json.loads((folder / "training_curve.json").read_text())["steps"]]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("model", "spec"), [("awq_llama", {}), ("awq_phi3", {"target_modules": FUSED}), ("awq_qwen2", {})]
)
def test_an_adapter_learns_the_responses(request, training, model, spec, dataset):
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from resources.olive.awq_folder import load_dequantized
    from resources.olive.passes.response_rows import tokenised_rows
    from resources.olive.passes.response_trainer import response_loss

    folder = request.getfixturevalue(model)
    made = training(awq_model=folder, **spec)
    artifact = made.run()
    assert losses(artifact)[-1] < 0.5 * losses(artifact)[0]
    assert made.progress.steps == [
        (
            "lora",
            step,
            24,
        )
        for step in range(1, 25)
    ]
    rows = tokenised_rows(dataset / "train.jsonl", AutoTokenizer.from_pretrained(folder))
    batch = {name: tensor[None] for name, tensor in rows[0].sample().items()}
    base = load_dequantized(folder)
    with torch.no_grad():
        before = response_loss(base, batch)
        adapted = PeftModel.from_pretrained(base, str(artifact)).eval()
        assert response_loss(adapted, batch) < 0.5 * before


def test_the_artifact_is_peft_files_and_a_curve_that_name_no_place_and_no_time(training, awq_llama):
    artifact = training().run()
    assert sorted(contents(artifact)) == ["adapter_config.json", "adapter_model.safetensors", "training_curve.json"]
    config = json.loads((artifact / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert config["target_modules"] == sorted(config["target_modules"]) and len(config["target_modules"]) == 7
    assert not any(str(awq_llama).encode() in content for content in contents(artifact).values())
    curve = json.loads((artifact / "training_curve.json").read_text())
    assert set(curve["steps"][0]) == {"step", "loss", "learning_rate", "tokens"}
    assert [step["step"] for step in curve["steps"]] == list(range(1, 25))
    assert curve["rows"] == 12 and curve["dropped_rows"] == 0


def test_the_loss_is_the_mean_over_response_tokens_whatever_the_prompt_and_the_padding(awq_llama, dataset):
    import torch
    from olive.passes.pytorch.lora import LoRA
    from transformers import AutoTokenizer

    from resources.olive.awq_folder import load_dequantized
    from resources.olive.passes.response_rows import ResponseRow
    from resources.olive.passes.response_trainer import response_loss

    model, tokenizer = load_dequantized(awq_llama), AutoTokenizer.from_pretrained(awq_llama)
    rows = [ResponseRow((5, 6, 7, 8), (9, 10)), ResponseRow((11,), (12, 13, 14, 15, 16, 17, 18))]
    expected = []
    for row in rows:
        logits = model(torch.tensor([row.prompt + row.response])).logits[0].log_softmax(-1)
        start = len(row.prompt)
        expected += [-logits[start + at - 1, token].item() for at, token in enumerate(row.response)]
    batch = LoRA.collate_batch([row.sample() for row in rows], tokenizer)
    with torch.no_grad():
        assert math.isclose(response_loss(model, batch).item(), sum(expected) / 9, rel_tol=1e-5)


def test_a_name_that_the_model_lacks_is_an_error_that_lists_those_it_has(training, awq_phi3):
    with pytest.raises(ConfigurationError, match=r"lora_adapter.target_modules: found gate_proj, .*v_proj") as error:
        training(awq_model=awq_phi3).run()
    assert "accepted: down_proj, gate_up_proj, o_proj, qkv_proj." in str(error.value)


def test_the_head_is_no_target(training):
    with pytest.raises(ConfigurationError, match="found lm_head"):
        training(target_modules=["q_proj", "lm_head"]).run()


def test_rows_longer_than_max_tokens_are_left_out_and_counted(training, tmp_path):
    dataset = write_dataset(
        tmp_path / "dataset", ("Rome", "Bonn", "a place with a name that is " + "very " * 30 + "long")
    )
    made = training(dataset=dataset, max_tokens=80)
    curve = json.loads((made.run() / "training_curve.json").read_text())
    assert (curve["rows"], curve["dropped_rows"]) == (2, 1)
    assert "1 of 3 rows are longer than 80 tokens and left out" in made.progress.lines


def test_max_tokens_that_leave_no_row_are_an_error_that_names_a_length_that_would_do(training):
    with pytest.raises(ConfigurationError, match=r"lora_adapter.max_tokens: found 16, .*all 12 rows.*at least \d\d"):
        training(max_tokens=16).run()


def test_a_loss_that_is_no_number_ends_the_training(training, awq_llama, tmp_path):
    from safetensors.torch import load_file, save_file

    damaged = shutil.copytree(awq_llama, tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"][:] = float("inf")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        StageError, match=r"lora_adapter: the loss is nan at step 1 of 24\. lower lora_adapter.learning"
    ):
        training(awq_model=damaged).run()


def kill_at(training: Training, step: int, tmp_path: Path) -> None:
    """Train in a process of its own and kill -9 it right after `step`."""
    request = tmp_path / "request.json"
    request.write_text(training.request(), encoding="utf-8")
    command = [sys.executable, "-m", "tests.lora_training", str(request)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"step {step}\n":
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    shutil.rmtree(training.folder)


# Dropout draws random numbers at every step, so equal bytes mean that their state came back, too.
RESUMED = {"steps": 40, "dropout": 0.2}


@pytest.fixture(scope="module")
def whole(awq_llama, dataset, tmp_path_factory):
    """The artifact of a training that nothing interrupts, and that writes only its last checkpoint."""
    place = tmp_path_factory.mktemp("whole")
    spec = RESUMED | {"checkpoint_steps": 40}
    return Training(awq_llama, dataset, place / "artifact", place / "scratch", spec).run()


def test_a_killed_training_goes_on_to_the_same_adapter(training, whole, tmp_path):
    killed = training("killed", **RESUMED)
    kill_at(killed, 14, tmp_path)
    resumed = killed.run()
    assert any(line.startswith("going on after step ") for line in killed.progress.lines)
    assert killed.progress.steps[0][1] > 8
    assert losses(resumed) == losses(whole)
    assert contents(resumed) == contents(whole)


def test_a_checkpoint_written_in_part_gives_way_to_the_one_before(training, whole, tmp_path):
    killed = training("killed", **RESUMED)
    kill_at(killed, 14, tmp_path)
    *_, before, last = sorted(killed.scratch.rglob("sealed.json"), key=lambda file: int(file.parent.name[11:]))
    optimizer = last.parent / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    resumed = killed.run()
    assert f"dropped unfinished checkpoints: {last.parent.name}" in killed.progress.lines[0]
    assert killed.progress.steps[0][1] == int(before.parent.name[11:]) + 1
    assert contents(resumed) == contents(whole)


def test_a_checkpoint_that_was_never_sealed_is_dropped(training):
    first = training("first")
    whole = contents(first.run())
    shutil.rmtree(first.folder)
    checkpoints = first.scratch / "checkpoints-cpu"
    assert sorted(folder.name for folder in checkpoints.iterdir()) == ["checkpoint-20", "checkpoint-24"]
    for folder in checkpoints.iterdir():
        (folder / "sealed.json").unlink()
    again = training("first")
    assert contents(again.run()) == whole
    assert again.progress.steps[0][1] == 1


def test_a_finished_training_that_was_not_committed_is_not_repeated(training):
    first = training("first")
    whole = contents(first.run())
    shutil.rmtree(first.folder)
    again = training("first")
    assert contents(again.run()) == whole
    assert again.progress.steps == []
