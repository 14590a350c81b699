"""The decode benchmark on a tiny Llama: its table, its check against PyTorch, and the GGUF files of the same values."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.gguf_model import write_gguf, write_lora_gguf
from resources.olive.awq_folder import load_dequantized
from tests.documentation import ROOT
from tests.onnx_folders import quantize, save_random_adapter

ROWS = (
    "no LoRA inputs",
    "LoRA inputs on q, v; no adapter",
    "adapter of rank 8 on q, v",
    "LoRA inputs on all seven; no adapter",
    "adapter of rank 8 on all seven",
    "adapter of rank 16 on all seven",
)


def test_the_table_has_a_row_of_speeds_for_each_way(tiny_llama):
    command = [
        sys.executable,
        "-m",
        "benchmarks.decode",
        "--base",
        tiny_llama,
        "--lengths",
        "8",
        "20",
        "--rounds",
        "1",
        "--seed",
        "3",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert "Same greedy token as PyTorch and mean KL on 28 random tokens" in done.stdout
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert tuple(row[0] for row in table[1:]) == ROWS
    assert all(float(row[1]) > 1 for row in table[1:])
    assert "llama.cpp is left out" in done.stdout


def test_at_phi35s_widths_each_rank_is_measured_beside_none():
    command = [sys.executable, "-m", "benchmarks.decode_phi35", "--layers", "1", "--rounds", "1", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert "Same greedy token as PyTorch and mean KL on 32 random tokens" in done.stdout
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table[2:]] == ["LoRA inputs; no adapter", "adapter of rank 16", "adapter of rank 64"]
    assert all("%" in row[2] for row in table[2:])


def test_a_gguf_file_holds_the_values_of_the_awq_model(tiny_llama, tmp_path):
    import gguf

    awq_model = quantize(tiny_llama, tmp_path)
    write_gguf(awq_model, tmp_path / "model.gguf")
    found = _tensors(tmp_path / "model.gguf")
    layer = load_dequantized(awq_model).model.layers[1]
    for name, module in (("ffn_down", layer.mlp.down_proj), ("attn_v", layer.self_attn.v_proj)):
        value = gguf.dequantize(*found[f"blk.1.{name}.weight"])
        assert np.abs(value - module.weight.detach().numpy()).max() < 1e-3  # d and m in float16, codes are 0.01 apart
    heads = layer.self_attn.config.num_attention_heads
    ours = layer.self_attn.q_proj.weight.detach().numpy()
    pairs = gguf.dequantize(*found["blk.1.attn_q.weight"]).reshape(heads, -1, 2, ours.shape[1])
    halves = ours.reshape(heads, 2, -1, ours.shape[1])
    assert np.abs(pairs[:, :, 0] - halves[:, 0]).max() < 1e-3
    assert np.abs(pairs[:, :, 1] - halves[:, 1]).max() < 1e-3


def test_a_gguf_adapter_holds_the_weights_of_peft(tiny_llama, tmp_path):
    from safetensors.numpy import load_file

    awq_model = quantize(tiny_llama, tmp_path)
    adapter = save_random_adapter(awq_model, tmp_path / "adapter", ("q_proj", "down_proj"))
    write_lora_gguf(adapter, awq_model, tmp_path / "lora.gguf")
    found, given = _tensors(tmp_path / "lora.gguf"), load_file(adapter / "adapter_model.safetensors")
    place = "base_model.model.model.layers.0.mlp.down_proj"
    for half in ("lora_A", "lora_B"):
        assert np.array_equal(found[f"blk.0.ffn_down.weight.{half.lower()}"][0], given[f"{place}.{half}.weight"])
    assert len(found) == len(given)


def _tensors(file):
    import gguf

    return {tensor.name: (tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(file).tensors}
