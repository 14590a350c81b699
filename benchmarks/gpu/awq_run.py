"""One model quantized by one tool in a process of its own: seconds, phases, peak GPU memory, perplexity.

    python -m benchmarks.gpu.awq_run press|llm-compressor --base FOLDER --samples FILE --made FOLDER --result FILE

From the folder of the base model to the folder of the quantized one; imports and the start of CUDA do not count.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

RATIOS = 20


def main() -> None:
    options = _options()
    import torch

    if options.limit_gb:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(options.limit_gb * 1e9 / whole)
    run = _press if options.tool == "press" else _llm_compressor
    phases, seconds, model = run(options)
    result: dict[str, Any] = {
        "seconds": seconds,
        "phases": phases,
        "peak_gb": torch.cuda.max_memory_reserved() / 1e9,
        "bytes": sum(file.stat().st_size for file in options.made.glob("*.safetensors")),
    }
    if options.measuring:
        result["perplexity"] = _perplexity(options, model)
    options.result.write_text(json.dumps(result), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tool", choices=("press", "llm-compressor"))
    for name in ("base", "samples", "made", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--measuring", type=Path, help="token samples to measure perplexity on")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="of press")
    parser.add_argument("--batch-size", type=int, default=1, help="of llm-compressor")
    parser.add_argument("--limit-gb", type=float, help="of GPU memory that PyTorch may take")
    return parser.parse_args()


def _press(options: argparse.Namespace) -> tuple[dict[str, float], float, Any]:
    """The awq_model stage's workflow: load, calibrate, search, clip, pack, save."""
    import olive.workflows  # noqa: F401
    import torch

    import resources.olive.passes.awq  # noqa: F401
    from resources.olive.awq_model import PASSES, awq_run_config, batch_size
    from resources.olive.phases import timed_phases
    from resources.olive.unhashed import unhashed
    from resources.olive.workflow import run_workflow

    tokens = len(json.loads(options.samples.read_text(encoding="utf-8"))[0])
    run_config = awq_run_config(
        options.base,
        options.samples,
        bits=4,
        group_size=options.group_size,
        symmetric=False,
        ratios=RATIOS,
        clip=True,
        device=options.device,
        batch_size=batch_size(options.device, tokens),
    )
    torch.ones(1, device=options.device)
    start = time.perf_counter()
    with timed_phases() as phases:
        run_workflow(unhashed(run_config), options.made, passes=PASSES)
    return phases, time.perf_counter() - start, None


def _llm_compressor(options: argparse.Namespace) -> tuple[dict[str, float], float, Any]:
    """llm-compressor's AWQ with its own defaults, in groups of the same size, from folder to folder."""
    import torch
    from compressed_tensors.quantization import preset_name_to_scheme  # pyright: ignore[reportMissingImports]
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from llmcompressor import oneshot  # pyright: ignore[reportMissingImports]
    from llmcompressor.modifiers.quantization import QuantizationModifier  # pyright: ignore[reportMissingImports]
    from llmcompressor.modifiers.transform.awq import AWQModifier  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForCausalLM

    from benchmarks.gpu.models import tokenizer

    scheme: Any = preset_name_to_scheme("W4A16_ASYM", ["Linear"])
    scheme.weights.group_size = options.group_size
    recipe = [
        AWQModifier(n_grid=RATIOS),
        QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]),
    ]
    samples = json.loads(options.samples.read_text(encoding="utf-8"))
    dataset = Dataset.from_dict({"input_ids": samples, "attention_mask": [[1] * len(row) for row in samples]})
    torch.ones(1, device="cuda")
    start = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(options.base, dtype="auto")
    model.to("cuda")
    torch.cuda.synchronize()
    loaded = time.perf_counter()
    oneshot(
        model=model,
        processor=tokenizer(),
        dataset=dataset,
        recipe=recipe,
        batch_size=options.batch_size,
        max_seq_length=len(samples[0]),
        num_calibration_samples=len(samples),
    )
    torch.cuda.synchronize()
    quantized = time.perf_counter()
    perplexity = _measured(model, options) if options.measuring else None  # saving packs the weights
    saving = time.perf_counter()
    model.save_pretrained(options.made, save_compressed=True)
    saved = time.perf_counter()
    phases = {"load": loaded - start, "oneshot": quantized - loaded, "save": saved - saving}
    return phases, sum(phases.values()), perplexity


def _perplexity(options: argparse.Namespace, measured: Any) -> float:
    if measured is not None:
        return measured
    from resources.olive.awq_folder import load_dequantized

    return _measured(load_dequantized(options.made, "float32", "cuda"), options)


def _measured(model: Any, options: argparse.Namespace) -> float:
    from resources.perplexity import perplexity

    return perplexity(model, json.loads(options.measuring.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
