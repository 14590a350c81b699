"""What the onnx_model is worth on held-out rows: quality, parity with PyTorch, speed, size; with and without adapter.

Perplexity: exp of the mean -log p(token) over the tokens of the responses. chrF: Popović 2015 (W15-3049), by sacrebleu.
Parity: same greedy next token and KL(PyTorch || ONNX) over prompts and responses; PyTorch is the dequantized awq_model
with the PEFT adapter.
Recipe: answer prompts with ONNX Runtime GenAI first, alone in the process, so that its peak memory is its own; then
teacher-force the rows through the shipped graph, the graph built for exactness and PyTorch.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from assets.experiment import EvalReportSpec
from assets.onnx_graph import ExactOnnxGraph, folder_bytes
from assets.report_text import report_text
from assets.stage import Attempt, Facts, Stage
from resources.answers import Answers, answer_rows
from resources.errors import StageError
from resources.forced_rows import ForcedRows, check_rows, force_rows, open_forced_models, tokenise_rows
from resources.genai import adapter_names
from resources.onnx_providers import check_folder_runs, check_provider
from resources.plots import bar_plot

REPORT = "report.json"


class EvalReport(Stage):
    """report.json and report.md: quality, parity, speed, size."""

    name = "eval_report"
    made_from = ("onnx_model", "dataset", "awq_model", "lora_adapter")
    ignores: ClassVar = {
        "dataset": ("train.jsonl", "counts.json"),
        "awq_model": ("awq_metrics.json",),
        "lora_adapter": ("training_curve.json",),
    }
    parts = (ExactOnnxGraph,)
    tools = (
        "onnxruntime-genai|onnxruntime-genai-cuda",
        "onnxruntime|onnxruntime-gpu",
        "sacrebleu",
        "torch",
        "transformers",
        "peft",
    )

    def spec(self) -> EvalReportSpec:
        return self.experiment.eval_report

    def check_run(self, here: bool) -> None:
        """What is measured is the shipped graph on the provider it ships for, not what a CPU makes of it."""
        if here:
            check_provider(self.experiment.onnx_model.provider, f"{self.experiment.name}.yaml: onnx_model.provider")

    def produce(self, attempt: Attempt) -> None:
        """Measure and write the report; a StageError when a figure is not finite."""
        spec, model = self.spec(), attempt.inputs["onnx_model"]
        check_folder_runs(model)
        adapter, rows = _adapter_of(model), _eval_rows(attempt.inputs["dataset"], spec.rows)
        trusted = self.experiment.base_model.trust_remote_code
        tokenised = tokenise_rows(rows, attempt.inputs["awq_model"], trusted)
        check_rows(tokenised, attempt.inputs["awq_model"])
        asked = [rows[number] for number in choose(len(rows), spec.generated_rows, spec.seed)]
        answers = answer_rows(model, adapter, asked, spec.max_new_tokens, attempt.progress)
        forced = force_rows(
            open_forced_models(attempt.inputs, adapter, attempt.scratch, attempt.device, trusted),
            tokenised,
            choose(len(rows), spec.parity_rows, spec.seed),
            attempt.progress,
        )
        report = build_report(answers, forced, len(rows), _sizes(model, adapter))
        _check_finite(report, "")
        _write(attempt.folder, report)

    def facts(self, folder: Path) -> Facts:
        """Every figure, the answers side by side, parity, the plots, and the report as text."""
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        numbers = {
            name: value
            for section in ("quality", "speed", "size")
            for name, value in report[section].items()
            if isinstance(value, int | float)
        } | {f"rows {name}": count for name, count in report["rows"].items()}
        parity = [{"graph": graph, **figures} for graph, figures in report["parity"].items()]
        return Facts(
            numbers
            | {f"{graph} {name}": value for graph, one in report["parity"].items() for name, value in one.items()},
            tables={"answers": report["samples"], "parity": parity},
            plots=_plots(report),
            texts={"report": (folder / "report.md").read_text(encoding="utf-8")},
        )


def choose(rows: int, count: int, seed: int) -> list[int]:
    """Numbers of `count` of `rows` rows, or of all where there are no more, drawn by `seed`, ascending."""
    return sorted(random.Random(seed).sample(range(rows), min(count, rows)))


def build_report(answers: Answers, forced: ForcedRows, rows: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The document of report.json; its names are a contract with the gates and with readers outside."""
    base, adapted = forced.perplexity_base, forced.perplexity_adapter
    return {
        "quality": {
            "perplexity_base": base,
            "perplexity_adapter": adapted,
            "perplexity_drop": 1 - adapted / base,
            "chrf_base": answers.chrf_base,
            "chrf_adapter": answers.chrf_adapter,
        },
        "parity": {name: parity.as_json() for name, parity in forced.parity.items()},
        "speed": {
            "tokens_per_second": answers.tokens_per_second,
            "tokens_per_second_base": answers.tokens_per_second_base,
            "first_token_seconds": answers.first_token_seconds,
            "first_token_seconds_base": answers.first_token_seconds_base,
            "peak_memory_bytes": answers.peak_memory_bytes,
        },
        "size": dict(sizes),
        "rows": {"evaluated": rows, "generated": len(answers.samples), "parity": forced.parity_rows},
        "samples": answers.samples,
    }


def _adapter_of(model: Path) -> str:
    names = adapter_names(model)
    if len(names) != 1:
        raise StageError("eval_report", f"the onnx_model has {len(names)} adapters; exactly one is measured")
    return names[0]


def _eval_rows(dataset: Path, limit: int | None) -> list[dict[str, str]]:
    lines = (dataset / "eval.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()][:limit]
    if not rows:
        raise StageError("eval_report", "the dataset has no eval rows", "Raise dataset.eval_fraction or add rows")
    return rows


def _sizes(model: Path, adapter: str) -> dict[str, int]:
    adapter_bytes = (model / "adapters" / f"{adapter}.onnx_adapter").stat().st_size
    return {"folder_bytes": folder_bytes(model), "adapter_bytes": adapter_bytes}


def _check_finite(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_finite(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, float) and not math.isfinite(value):
        raise StageError("eval_report", f"{place} is {value}", "Look at the loss of lora_adapter and at the eval rows")


def _write(folder: Path, report: dict[str, Any]) -> None:
    document = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / REPORT).write_text(document, encoding="utf-8")
    (folder / "report.md").write_text(report_text(report), encoding="utf-8")


def _plots(report: Mapping[str, Any]) -> dict[str, bytes]:
    quality, speed = report["quality"], report["speed"]
    perplexity = {"base": quality["perplexity_base"], "adapter": quality["perplexity_adapter"]}
    tokens = {"base": speed["tokens_per_second_base"], "adapter": speed["tokens_per_second"]}
    return {
        "perplexity": bar_plot("Held-out response perplexity", "perplexity", perplexity),
        "speed": bar_plot("Decode speed", "tokens/s", tokens, digits=1),
    }
