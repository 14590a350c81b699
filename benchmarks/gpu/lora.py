"""LoRA on a GPU at Phi-3.5-mini's size: the published lab's 100 steps at rank 64, beside plain PEFT and Trainer.

    python -m benchmarks.gpu.lora [--quick] [--without-peer] [--without-kill]

A model of Phi-3.5-mini's shape with random bfloat16 weights; the rows are those of data/travel.jsonl. press trains on
its int4 weights, once from end to end and once killed at step 60 and started again; PEFT with transformers' Trainer
trains on the bfloat16 weights, with the same arguments. The first loss is checked against one in float32. --quick takes
a model of two small layers. Needs CUDA.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.lora_run import OPTIONS
from benchmarks.gpu.lora_work import operations
from benchmarks.gpu.machine import description, measured_ceilings, require_cuda
from benchmarks.gpu.models import PHI35_SHAPE, SMALL, save_awq_model, save_random_phi3

ROWS = Path(__file__).resolve().parents[2] / "data" / "travel.jsonl"
KILLED_AT = 60
LIMIT = 0.01  # of the loss


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--without-peer", action="store_true", help="leave PEFT with Trainer out")
    parser.add_argument("--without-kill", action="store_true", help="leave the interrupted training out")
    options = parser.parse_args()
    require_cuda()
    seed = time.time_ns() % 2**31
    print(f"{description()}\nseed {seed}\n", flush=True)
    shape = PHI35_SHAPE | (SMALL if options.quick else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_random_phi3(folder / "base", "cuda", seed, **shape)
        save_awq_model(folder / "base", folder / "awq", "cuda")
        expected = reference_loss(folder / "awq", "cuda")
        _free_gpu_memory()
        peak = measured_ceilings().bfloat16
        _free_gpu_memory()
        results = {"press": train(folder, "press", "awq")}
        check_loss(results["press"]["losses"][0], expected)
        if not options.without_kill:
            results["press, killed and started again"] = resumed(folder, "awq", results["press"]["losses"][-1])
        if not options.without_peer:
            results["PEFT and Trainer, bfloat16 weights"] = train(folder, "peft", "base")
        must, tokens = training(folder / "awq", shape)
    print(f"\nbfloat16 ceiling {peak / 1e12:.0f} TFLOP/s; {tokens / OPTIONS.steps:.0f} tokens a step\n")
    print(table(results, must, tokens, peak))


def reference_loss(awq_model: Path, device: str) -> float:
    """The loss of the first batch in float32, where a fresh adapter adds nothing."""
    import torch
    from olive.passes.pytorch.lora import LoRA
    from transformers import AutoTokenizer

    from resources.olive.awq_folder import load_dequantized
    from resources.olive.passes.response_trainer import response_loss

    tokenizer = AutoTokenizer.from_pretrained(awq_model, local_files_only=True)
    rows, order = _rows(awq_model)
    batch = LoRA.collate_batch([rows[row].sample() for row in order[: OPTIONS.batch_size]], tokenizer)
    model = load_dequantized(awq_model, "float32", device)
    with torch.inference_mode():
        return response_loss(model, {name: values.to(device) for name, values in batch.items()}).item()


def check_loss(loss: float, expected: float) -> None:
    deviation = abs(loss / expected - 1)
    assert deviation <= LIMIT, f"first loss {loss:.4f}, in float32 {expected:.4f}; accepted: {LIMIT:.0%} apart"
    print(f"first loss {loss:.4f}, in float32 {expected:.4f}", flush=True)


def training(awq_model: Path, shape: dict[str, int]) -> tuple[int, int]:
    """The operations and the tokens, padding not counted, of all steps together."""
    rows, order = _rows(awq_model)
    trained = [(len(rows[row]), len(rows[row].response)) for row in order]
    return operations(shape, OPTIONS.r, trained), sum(tokens for tokens, _ in trained)


def _rows(awq_model: Path) -> tuple[list[Any], list[int]]:
    from transformers import AutoTokenizer

    from resources.olive.passes.response_rows import tokenised_rows, training_order

    tokenizer = AutoTokenizer.from_pretrained(awq_model, local_files_only=True)
    rows = [row for row in tokenised_rows(ROWS, tokenizer) if len(row) <= OPTIONS.max_tokens]
    return rows, training_order([len(row) for row in rows], OPTIONS.steps, OPTIONS.batch_size, OPTIONS.seed)


def train(folder: Path, tool: str, model: str, *more: str) -> dict[str, Any]:
    """What lora_run.py, given `more` arguments, measured of one training in a process of its own."""
    work = folder / f"{tool}-work"
    subprocess.run([*_command(folder, tool, model, work), *more], check=True, stdout=subprocess.DEVNULL)
    result = _result(work)
    print(f"{tool}: {result['seconds']:.1f} s, last loss {result['losses'][-1]:.4f}", flush=True)
    return result


def resumed(folder: Path, model: str, whole: float, *more: str, killed_at: int = KILLED_AT) -> dict[str, Any]:
    """A training that is killed right after a step and started again; its last loss must be that `whole` one."""
    work = folder / "killed-work"
    command = [*_command(folder, "press", model, work), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"{killed_at}\n":
                process.kill()
    assert process.returncode == -signal.SIGKILL, (
        f"the training ended with code {process.returncode} before it was killed"
    )
    shutil.rmtree(work / "adapter", ignore_errors=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result = _result(work)
    last = result["losses"][-1]
    assert abs(last / whole - 1) <= LIMIT, f"last loss {last:.4f}, of the whole training {whole:.4f}"
    print(f"killed at step {killed_at}: {'; '.join(result['lines'])}; last loss {last:.4f}, uninterrupted {whole:.4f}")
    return result


def _command(folder: Path, tool: str, model: str, work: Path) -> list[str]:
    work.mkdir(exist_ok=True)
    places = ["--model", folder / model, "--rows", ROWS, "--work", work, "--result", work / "result.json"]
    command = [sys.executable, "-m", "benchmarks.gpu.lora_run", tool, *places]
    return [str(part) for part in command]


def _result(work: Path) -> dict[str, Any]:
    result = json.loads((work / "result.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return result


def _free_gpu_memory() -> None:
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


def table(results: dict[str, dict[str, Any]], must: int, tokens: int, peak: float) -> str:
    """One row a training; steps are medians, tokens/s and the share of the ceiling are those of the median step."""
    lines = [
        "| | seconds in all | to the end of step 1 | ms a step | tokens/s | of the bfloat16 ceiling | "
        "GPU memory, peak GB | last loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        step = sorted(result["steps"])[len(result["steps"]) // 2]
        share = 100 * must / OPTIONS.steps / step / peak
        numbers = (
            f"{result['seconds']:.1f} | {result['before']:.1f} | {1e3 * step:.0f} | {tokens / OPTIONS.steps / step:.0f}"
        )
        memory = f"{result['peak_gb']:.1f}" if "peak_gb" in result else ""
        lines.append(f"| {name} | {numbers} | {share:.0f} % | {memory} | {result['losses'][-1]:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
