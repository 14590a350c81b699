"""An Olive workflow of the two stages that Olive has, AWQ and LoRA, with Olive's own cache.

python -m benchmarks.staleness.olive_workflow CACHE

Reads the samples and rows that lie in prepared/; adds the passes that ran, and were not loaded from the cache, to the
file $STAGE_LOG.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from assets.experiment import Experiment, read_experiment
from benchmarks.staleness.stage import log_executed
from resources.olive.awq_model import PASSES as AWQ_PASSES
from resources.olive.awq_model import awq_run_config
from resources.olive.lora_adapter import PASSES as LORA_PASSES
from resources.olive.lora_adapter import LoraOptions, lora_run_config
from resources.olive.workflow import package_config

STAGES = {"awq": "awq_model", "adapter": "lora_adapter"}  # pass → stage
SAMPLES, ROWS, CHECKPOINTS = "samples.json", "train.jsonl", "checkpoints"


def run_config(root: Path, experiment: Experiment, cache: Path) -> dict[str, Any]:
    """The run config: AWQ, then LoRA on what it made, from the files in prepared/."""
    prepared, spec = root / "prepared", experiment.awq_model
    awq = awq_run_config(
        root / "base_model",
        prepared / SAMPLES,
        bits=spec.bits,
        group_size=spec.group_size,
        symmetric=spec.symmetric,
        ratios=spec.ratios,
        clip=spec.clip,
    )
    options = LoraOptions(**experiment.lora_adapter.model_dump())
    lora = lora_run_config(root, prepared / ROWS, prepared / CHECKPOINTS, options, "cpu")
    return {
        **lora,
        **awq,
        "workflow_id": "tiny",
        "passes": awq["passes"] | lora["passes"],
        "cache_dir": str(cache),
        "output_dir": str(root / "olive-output"),
        "log_severity_level": 1,
    }


class _PassLog(logging.Handler):
    """Tells passes that ran from passes that were loaded from the cache."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.executed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Running pass "):
            self.executed.append(message.removeprefix("Running pass ").partition(":")[0])
        elif message.startswith("Loaded model from cache"):
            self.executed.pop()


def main() -> None:
    root = Path.cwd()
    experiment = read_experiment(root / "experiments" / "tiny.yaml")
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    logging.getLogger("olive.telemetry.library.telemetry_logger").disabled = True  # else it says hello before it obeys
    from olive.workflows import run

    passes = AWQ_PASSES | LORA_PASSES
    for module in passes.values():
        import_module(module)
    log = _PassLog()
    logging.getLogger("olive").addHandler(log)
    config = run_config(root, experiment, root / sys.argv[1])
    output = run(config, package_config=package_config(passes))
    if output is None or not output.has_output_model():
        sys.exit("Olive made no model")
    for name in log.executed:
        log_executed(STAGES[name])


if __name__ == "__main__":
    main()
