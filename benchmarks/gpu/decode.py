"""int4 decode on a GPU at Phi-3.5-mini's size, with and without an adapter, beside the stock configuration.

    python -m benchmarks.gpu.decode [--quick]

A model of Phi-3.5-mini's shape, its longrope too, with random weights and a random adapter of rank 64, in int4 groups
of 128. Stock is what the model builder of ONNX Runtime GenAI makes of it with its defaults for CUDA, and its adapter
the one that GenAI's Adapters activate. Logits are checked first, against PyTorch in float32 on the same dequantized
weights: a prompt, tokens one by one after it, and a prompt beyond the original context. --quick takes a model of two
small layers. Needs CUDA, onnxruntime-gpu and onnxruntime-genai-cuda.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import description, measured_ceilings, require_cuda
from benchmarks.gpu.models import PHI35_SHAPE, SMALL, save_awq_model, save_random_adapter, save_random_phi3

ADAPTER = "random"
RANK = 64
ORIGINAL, CONTEXT = 4096, 131072
LIMIT = 0.05  # of the logits' norm: float16, and the head in int8
HEAD_LIMIT = 0.15  # the same where the head is int4
LENGTHS = ((40, 12), (ORIGINAL + 400, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model")
    options = parser.parse_args()
    require_cuda()
    seed = time.time_ns() % 2**31
    print(f"{description()}, {_onnxruntime()}\nseed {seed}\n", flush=True)
    shape = PHI35_SHAPE | (SMALL if options.quick else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_folders(folder, shape, seed, "cuda")
        sequences = save_tokens(folder / "tokens.json", seed)
        _free_gpu_memory()
        expected = {name: reference(folder, sequences, name, "cuda") for name in (None, ADAPTER)}
        _free_gpu_memory()
        bandwidth = measured_ceilings().bytes
        _free_gpu_memory()
        results = {
            "stock": ask(folder, "stock", None, expected, HEAD_LIMIT),
            "stock, adapter": ask(folder, "stock-adapter", ADAPTER, expected, LIMIT),
            "press": ask(folder, "press", None, expected, LIMIT),
            "press, adapter": ask(folder, "press", ADAPTER, expected, LIMIT),
        }
        print(f"\n{table(results)}\n")
        codes = sum(file.stat().st_size for file in (folder / "awq").glob("*.safetensors"))
        for adapter in (None, ADAPTER):
            print(f"press{', adapter' if adapter else ''}: {kernels(watch(folder, adapter), codes, bandwidth)}")


def _onnxruntime() -> str:
    import onnxruntime
    import onnxruntime_genai

    return f"onnxruntime {onnxruntime.__version__}, onnxruntime-genai {onnxruntime_genai.__version__}"


def save_folders(folder: Path, shape: dict[str, int], seed: int, device: str, provider: Any = "cuda") -> None:
    """Leave in `folder`: awq, adapter (PEFT's), press (an onnx_model folder), stock and stock-adapter."""
    from assets.onnx_graph import build_graph
    from resources.olive.baked_adapter import bake_graphs
    from resources.olive.graft import graft_adapter
    from resources.olive.onnx_model import GraphOptions
    from resources.progress import RecordedProgress

    longrope = {"max_position_embeddings": CONTEXT, "original_max_position_embeddings": ORIGINAL}
    save_random_phi3(folder / "base", device, seed, **(shape | longrope))
    save_awq_model(folder / "base", folder / "awq", device)
    shutil.rmtree(folder / "base")
    _add_longrope(folder / "awq" / "config.json")
    save_random_adapter(folder / "awq", folder / "adapter", RANK, seed)
    build_graph(folder / "awq", GraphOptions(provider, "int8", 4), folder / "graph", RecordedProgress())
    graft_adapter(folder / "graph", folder / "adapter", folder / "press", ADAPTER)
    bake_graphs(folder / "graph", folder / "press", ADAPTER)
    _build_stock(folder, provider)


def _add_longrope(file: Path) -> None:
    """Factors like Phi-3.5-mini's: the short ones near 1, the long ones growing to tens."""
    config = json.loads(file.read_text(encoding="utf-8"))
    pairs = config["hidden_size"] // config["num_attention_heads"] // 2
    config.pop("rope_parameters", None)
    config["rope_scaling"] = {
        "type": "longrope",
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.04 * pair for pair in range(pairs)],
        "long_factor": [1.0 + 1.3 * pair for pair in range(pairs)],
    }
    file.write_text(json.dumps(config), encoding="utf-8")


def _build_stock(folder: Path, provider: str) -> None:
    """The model builder's defaults; with an adapter, its graph with LoRA inputs, which its defaults do not have."""
    from resources.olive.graft import graft_adapter
    from resources.olive.passes.genai_builder import build
    from resources.olive.unfused import write_unfused

    write_unfused(folder / "awq", folder / "unfused")
    plain = {"hf_token": "false", "hf_remote": "false"}
    apart = plain | {"fuse_qkv": "false", "algo_config": "rtn_last"}
    for name, options in (("stock", plain), ("stock-graph", apart)):
        (folder / name).mkdir()
        build(folder / "unfused", folder / name, "int4", provider, options)
    graft_adapter(folder / "stock-graph", folder / "adapter", folder / "stock-adapter", ADAPTER)
    shutil.rmtree(folder / "unfused")


def save_tokens(file: Path, seed: int) -> list[dict[str, list[int]]]:
    """Fresh random tokens, a prompt and what comes then, of each of LENGTHS."""
    chance = random.Random(seed)
    draw = [
        (chance.choices(range(3, 900), k=prompt), chance.choices(range(3, 900), k=then)) for prompt, then in LENGTHS
    ]
    sequences = [{"prompt": prompt, "then": then} for prompt, then in draw]
    file.write_text(json.dumps(sequences), encoding="utf-8")
    return sequences


def reference(folder: Path, sequences: Sequence[dict[str, list[int]]], adapter: str | None, device: str) -> list[Any]:
    """For each sequence [1 + then, vocabulary]: PyTorch's logits after the prompt and after each token that follows."""
    from resources.pytorch_reference import PytorchReference

    model = PytorchReference(folder / "awq", folder / "adapter", device)
    found = []
    for sequence in sequences:
        logits = model.logits([*sequence["prompt"], *sequence["then"]], adapter is not None)
        found.append(logits[len(sequence["prompt"]) - 1 :])
    return found


def ask(
    folder: Path, name: str, adapter: str | None, expected: dict[str | None, list[Any]], limit: float
) -> dict[str, Any]:
    """What decode_run.py measured of the folder `name`, whose logits must be within `limit` of `expected`."""
    import numpy as np

    result = _run(folder, name, adapter)
    with np.load(folder / "made" / "logits.npz") as logits:
        found = list(logits.values())
    result["deviations"] = [_deviation(one, other) for one, other in zip(found, expected[adapter], strict=True)]
    far = [deviation for deviation in result["deviations"] if not deviation <= limit]
    assert not far, f"{name}: logits {far[0]:.3f} of their norm from PyTorch's, accepted: {limit}"
    print(f"{name}{f' with {adapter}' if adapter else ''}: {json.dumps(result)}", flush=True)
    return result


def watch(folder: Path, adapter: str | None) -> dict[str, float]:
    """Kernel → microseconds a token, of press's folder."""
    return _run(folder, "press", adapter, "--kernels")


def _run(folder: Path, name: str, adapter: str | None, *more: str) -> dict[str, Any]:
    made = folder / "made"
    made.mkdir(exist_ok=True)
    places = ["--folder", folder / name, "--tokens", folder / "tokens.json", "--made", made]
    chosen = ["--adapter", adapter] if adapter else []
    command = [sys.executable, "-m", "benchmarks.gpu.decode_run", *places, *chosen, *more]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return json.loads((made / "result.json").read_text(encoding="utf-8"))


def _deviation(found: Any, expected: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _free_gpu_memory() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row a configuration; times faster is against the stock one that does the same."""
    lines = [
        "| | tokens/s after 16 tokens | after 1,024 | times stock's | off PyTorch | beyond the original context |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        short, long = result["speed"].values()
        stock = results["stock, adapter" if "adapter" in name else "stock"]["speed"]
        times = short / next(iter(stock.values()))
        off = " | ".join(f"{100 * deviation:.1f} %" for deviation in result["deviations"])
        lines.append(f"| {name} | {short:.0f} | {long:.0f} | {times:.2f} | {off} |")
    return "\n".join(lines)


def kernels(microseconds: dict[str, float], codes: int, bandwidth: float) -> str:
    """What a token's kernels take in all, and the int4 products among them against the card's bandwidth."""
    total = sum(microseconds.values())
    products = sum(taken for name, taken in microseconds.items() if "4bits" in name.lower())
    rate = codes / products * 1e6 if products else 0.0
    return (
        f"kernels take {total:.0f} µs a token, int4 products {products:.0f} of them: {rate / 1e12:.2f} TB/s, "
        f"{100 * rate / bandwidth:.0f} % of a copy's {bandwidth / 1e12:.2f}"
    )


if __name__ == "__main__":
    main()
