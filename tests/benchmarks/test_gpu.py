"""The benchmark on a GPU, as far as a machine without one shows: its model, its counts, a run of press, its tables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.gpu.__main__ import _phases_table, _runs_table
from benchmarks.gpu.awq_work import Work, work
from benchmarks.gpu.machine import Ceilings
from benchmarks.gpu.models import PHI35_SHAPE, save_random_phi3, save_random_tokens
from tests.documentation import ROOT

TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "vocab_size": 1024}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "eos_token_id": 2, "pad_token_id": 0}


def python(*arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_without_a_gpu_it_says_so():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = python("benchmarks.gpu")
    assert done.returncode == 1
    assert "no NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr


def test_press_is_measured_on_the_model_that_the_benchmark_makes(tmp_path):
    save_random_phi3(tmp_path / "base", "cpu", 0, **TINY, **HEADS)
    save_random_tokens(tmp_path / "samples.json", 2, 16, 0)
    places = {name: tmp_path / name for name in ("base", "made", "samples.json", "result.json")}
    run = ["press", "--device", "cpu", "--base", places["base"], "--samples", places["samples.json"]]
    done = python("benchmarks.gpu.awq_run", *run, "--made", places["made"], "--result", places["result.json"])
    assert done.returncode == 0, done.stderr
    result = json.loads(places["result.json"].read_text())
    assert set(result["phases"]) == {"load", "calibrate", "search", "clip", "pack", "save"}
    assert sum(result["phases"].values()) < result["seconds"]
    assert result["bytes"] == (places["made"] / "model.safetensors").stat().st_size
    least = work(PHI35_SHAPE | TINY | HEADS, 2, 16, 128, 20)
    table = _phases_table(result, least, Ceilings(1e12, 1e12, 1e12), 1)
    assert [row.split(" | ")[0].strip("| ") for row in table.splitlines()[2:-1]] == list(result["phases"])
    assert len(_runs_table({"press": result}).splitlines()) == 3


def test_the_work_is_that_of_the_models_linear_layers():
    weights = 32 * (3072 * 9216 + 3072 * 3072 + 3072 * 16384 + 8192 * 3072)
    found = work(PHI35_SHAPE, samples=128, tokens=512, group_size=128, ratios=20)
    assert found["search"].operations == 21 * 3 * 2 * 128 * weights
    assert found["clip"].operations / found["search"].operations == 33 / 21
    assert found["calibrate"].operations > 2 * weights * 65536
    assert found["pack"] == Work(0, 4.5 * weights)
