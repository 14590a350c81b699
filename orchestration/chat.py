"""press chat: the onnx_model as last materialized, with a warning when it went stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from assets.experiment import Experiment
from orchestration.planner import Planner
from orchestration.recorded import open_records
from orchestration.registries import Registries
from resources.errors import ConfigurationError
from resources.genai import GenaiModel, Generation
from resources.onnx_providers import check_folder_runs
from resources.store.store import Store


def open_model(
    experiment: Experiment, home: Path, adapter: str | None, no_adapter: bool
) -> tuple[GenaiModel, str | None]:
    """The model and the adapter it answers with; without an onnx_model a ConfigurationError."""
    store = Store(home)
    with open_records(home) as records:
        planned = Planner(store, Registries(home), records).plan(experiment)
    recorded = planned.history.stages.get("onnx_model")
    if recorded is None:
        raise ConfigurationError(
            f"{experiment.name}.onnx_model",
            "no materialization",
            "one that is complete",
            f"press run {experiment.name}",
        )
    status = planned.stage("onnx_model").status
    if status != "fresh":
        sys.stderr.write(
            f"press: this onnx_model is stale ({status}); press run {experiment.name} brings it up to date\n"
        )
    chosen = None if no_adapter else adapter or experiment.onnx_model.adapter
    folder = store.open(recorded.data_version)
    check_folder_runs(folder)
    return GenaiModel(folder, chosen), chosen


def ask(model: GenaiModel, prompt: str, max_new_tokens: int, shown: bool) -> Generation:
    """The model's answer; `shown` writes it to standard output as it comes."""

    def show(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    answer = model.generate(prompt, max_new_tokens, on_text=show if shown else None)
    if shown:
        sys.stdout.write("\n")
        sys.stderr.write(f"{answer.tokens} tokens, {answer.tokens_per_second:.1f} tokens/s\n")
    return answer


def answer_as_json(answer: Generation, adapter: str | None) -> dict[str, Any]:
    """The document of `press chat --json`."""
    return {
        "text": answer.text,
        "tokens": answer.tokens,
        "tokens_per_second": answer.tokens_per_second,
        "adapter": adapter,
    }
