"""Decode speed on the CPU at Phi-3.5-mini's shape: what adapters of rank 16 and 64 on all projections cost there.

The awq model has random codes (int4 in groups of 128) and the adapters are random. Measured as benchmarks.decode does:
batch 1, two threads, all in turn. First two layers of the same widths, with an adapter, are compared with PyTorch on a
fresh random prompt. Takes 8 GB of memory, and 8 GB of disk.

    python -m benchmarks.decode_phi35 [--layers 32] [--rounds 4] [--seed 0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from assets.onnx_graph import build_graph
from benchmarks.decode import KL, Decoding, measure, save_adapter, table
from benchmarks.export import save_random_awq_model, save_random_lora
from benchmarks.gpu.models import PHI35_SHAPE
from resources.olive.graft import graft_adapter
from resources.olive.onnx_model import GraphOptions
from resources.progress import RecordedProgress

TARGETS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
RANKS = (16, 64)
PROMPT = 16
COMPARED = 2  # layers
WORDS = 4000  # ids that the tokenizer has


def main() -> None:
    options = _options()
    draw = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        print(compare(folder / "compared", options.seed, draw.integers(3, WORDS, 2 * PROMPT).tolist()), "\n")
        save_folders(folder / "measured", options.layers, options.seed)
        rows = [
            Decoding("no LoRA inputs", "onnx_graph"),
            Decoding("LoRA inputs; no adapter", "onnx_model", beside="no LoRA inputs"),
            *(
                Decoding(f"adapter of rank {rank}", "onnx_model", f"rank-{rank}", "LoRA inputs; no adapter")
                for rank in RANKS
            ),
        ]
        measure(folder / "measured", rows, draw.integers(3, WORDS, PROMPT).tolist(), options.rounds)
    print(f"{options.layers} layers of Phi-3.5-mini, adapters on all projections\n\n{table(rows, (PROMPT,))}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=PHI35_SHAPE["num_hidden_layers"])
    parser.add_argument("--rounds", type=int, default=4, help="blocks of tokens a row")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--folder", type=Path, help="for what is made, 8 GB; else a temporary one")
    return parser.parse_args()


def compare(folder: Path, seed: int, prompt: list[int]) -> str:
    """How close the logits of a few layers with an adapter are to PyTorch's; too far apart ends the program."""
    from resources.parity import Parity
    from resources.pytorch_reference import PytorchReference
    from resources.teacher_forcing import TeacherForcedGraph

    save_random_awq_model(folder / "awq_model", COMPARED, seed)
    _build(folder)
    save_adapter(folder / "awq_model", folder / "lora_adapter", TARGETS, RANKS[0], seed)
    graft_adapter(folder / "onnx_graph", folder / "lora_adapter", folder / "onnx_model", "compared")
    reference = PytorchReference(folder / "awq_model", folder / "lora_adapter")
    graph = TeacherForcedGraph(folder / "onnx_model")
    told = []
    for name in (None, "compared"):
        parity = Parity()
        parity.add(reference.logits(prompt, name is not None), graph.logits(prompt, name))
        found = parity.as_json()
        told.append(f"{found['agreement']:.1%}, {found['kl_nats']:.4f}")
        if not found["kl_nats"] < KL:
            sys.exit(f"not the logits of PyTorch (same greedy token, mean KL): {told[-1]}")
    return (
        f"Same greedy token as PyTorch and mean KL on {len(prompt)} random tokens: {'; with an adapter '.join(told)}."
    )


def save_folders(folder: Path, layers: int, seed: int) -> None:
    """Leave in `folder`: onnx_graph, and onnx_model with an adapter of each of RANKS."""
    save_random_awq_model(folder / "awq_model", layers, seed)
    _build(folder)
    for rank in RANKS:
        name, made = f"rank-{rank}", folder / f"onnx_model-{rank}"
        save_random_lora(folder / name, layers, seed + rank, rank)
        graft_adapter(folder / "onnx_graph", folder / name, made, name)
    whole = (folder / f"onnx_model-{RANKS[0]}").rename(folder / "onnx_model")
    for rank in RANKS[1:]:
        file = f"adapters/rank-{rank}.onnx_adapter"
        shutil.copyfile(folder / f"onnx_model-{rank}" / file, whole / file)


def _build(folder: Path) -> None:
    build_graph(folder / "awq_model", GraphOptions("cpu", "int8", 4), folder / "onnx_graph", RecordedProgress())


if __name__ == "__main__":
    main()
