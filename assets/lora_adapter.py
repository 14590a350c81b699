"""The LoRA adapter, trained on the AWQ weights.

Paper: arXiv 2106.09685, LoRA. Each target projection computes y = W x + (alpha / r) B A x; W, the dequantized AWQ
weights, stays as it is, A [r, in] and B [out, r] are trained.
Recipe: one row one sample in the tokenizer's chat template; loss = mean of -log p(token) over the tokens of the
response and the token that ends its turn; AdamW, linear warmup, linear fall to zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from assets.experiment import LoraAdapterSpec
from assets.stage import Attempt, Facts, Stage
from resources.errors import ConfigurationError
from resources.olive.lora_adapter import PASSES, LoraOptions, lora_run_config
from resources.olive.unhashed import unhashed
from resources.olive.workflow import run_workflow
from resources.plots import line_plot

TABLE_ROWS = 25


class LoraAdapter(Stage):
    """adapter_model.safetensors and adapter_config.json as PEFT reads them, and training_curve.json."""

    name = "lora_adapter"
    made_from = ("awq_model", "dataset")
    ignores: ClassVar = {"awq_model": ("awq_metrics.json",), "dataset": ("eval.jsonl", "counts.json")}
    tools = ("olive-ai", "torch", "transformers", "peft", "accelerate")

    def spec(self) -> LoraAdapterSpec:
        return self.experiment.lora_adapter

    def check(self) -> None:
        """The warmup must leave a step that trains at the full learning rate."""
        spec = self.spec()
        if spec.warmup_steps >= spec.steps:
            place = f"{self.experiment.name}.yaml: lora_adapter.warmup_steps"
            raise ConfigurationError(
                place, str(spec.warmup_steps), f"0 to {spec.steps - 1}, fewer than lora_adapter.steps"
            )

    def produce(self, attempt: Attempt) -> None:
        """Train on the dataset's train rows; an interrupted attempt of the same key on the same device goes on."""
        checkpoints = attempt.scratch / f"checkpoints-{attempt.device}"
        checkpoints.mkdir(parents=True, exist_ok=True)
        rows = attempt.inputs["dataset"] / "train.jsonl"
        options = LoraOptions(**self.spec().model_dump())
        trusted = self.experiment.base_model.trust_remote_code
        run_config = lora_run_config(attempt.inputs["awq_model"], rows, checkpoints, options, attempt.device, trusted)
        run_workflow(unhashed(run_config), attempt.folder, attempt.progress, PASSES)

    def facts(self, folder: Path) -> Facts:
        """Losses in nats a response token, what was trained on, the curve as table and plot."""
        curve = json.loads((folder / "training_curve.json").read_text(encoding="utf-8"))
        steps = curve["steps"]
        numbers = {
            "first_loss": steps[0]["loss"],
            "last_loss": steps[-1]["loss"],
            "steps": len(steps),
            "rows": curve["rows"],
            "dropped_rows": curve["dropped_rows"],
            "trained_tokens": sum(step["tokens"] for step in steps),
            "trainable_parameters": curve["trainable_parameters"],
            "adapter_bytes": (folder / "adapter_model.safetensors").stat().st_size,
        }
        return Facts(
            numbers,
            tables={"training_curve": _table(steps)},
            plots={"training_curve": _plot(steps)},
            texts={"summary": _summary(numbers)},
        )


def _table(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most TABLE_ROWS of `steps`, evenly spread, the first and the last among them."""
    rows = min(len(steps), TABLE_ROWS)
    return [steps[round(row * (len(steps) - 1) / max(rows - 1, 1))] for row in range(rows)]


def _plot(steps: list[dict[str, Any]]) -> bytes:
    points = [(step["step"], step["loss"]) for step in steps]
    return line_plot("Training", "step", "loss, nats a response token", {"loss": points})


def _summary(numbers: Mapping[str, float | int]) -> str:
    first, last = numbers["first_loss"], numbers["last_loss"]
    text = (
        f"Trained {numbers['steps']} steps on {numbers['rows']} rows. Loss on responses: {first:.2f} nats a token at "
        f"first, {last:.2f} at last (perplexity {math.exp(first):.1f} and {math.exp(last):.1f})."
    )
    if numbers["dropped_rows"]:
        text += f" {numbers['dropped_rows']} rows are longer than lora_adapter.max_tokens and were left out."
    return text
