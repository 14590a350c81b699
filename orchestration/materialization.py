"""Materializing: what must be computed, or may have to be, in one Dagster run of this process."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from assets.experiment import Experiment
from assets.recipes import STAGE_NAMES
from orchestration.experiment_assets import build_definitions
from orchestration.gpu_pool import holds_pool, size_pool, tell_full
from orchestration.history import asset_key, open_instance
from orchestration.interrupted import close_interrupted_runs
from orchestration.remotes import Remotes
from orchestration.run_processes import process_tags
from orchestration.terminal import Terminal
from orchestration.turns import Turns
from resources.accelerators import Accelerators
from resources.compute import LocalCompute
from resources.errors import StageError


def materialize(
    experiment: Experiment,
    pending: list[str],
    home: Path,
    turns: Turns,
    terminal: Terminal,
    compute: LocalCompute,
    remotes: Remotes,
) -> None:
    """Materialize the `pending` stages in one Dagster run of this process; the caller has the experiment's turn."""
    with open_instance(home) as instance:
        close_interrupted_runs(instance)
        size_pool(instance, Accelerators().slots())
        if any(holds_pool(experiment, name) for name in pending):
            tell_full(instance, terminal.waiting)
        _run(experiment, pending, instance, turns, terminal, compute, remotes)


def _run(
    experiment: Experiment,
    pending: list[str],
    instance: dg.DagsterInstance,
    turns: Turns,
    terminal: Terminal,
    compute: LocalCompute,
    remotes: Remotes,
) -> None:
    definitions = build_definitions([experiment], compute, terminal, turns, remotes=remotes)
    keys = [asset_key(experiment.name, name) for name in pending]
    job = dg.define_asset_job("press_run", selection=dg.AssetSelection.assets(*keys))
    resolved = dg.Definitions(
        assets=definitions.assets,
        asset_checks=definitions.asset_checks,
        resources=definitions.resources,
        jobs=[job],
    ).resolve_job_def("press_run")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = resolved.execute_in_process(instance=instance, run_config=quiet, raise_on_error=False, tags=process_tags())
    for event in result.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
            raise KeyboardInterrupt  # Dagster caught the signal to end the step in order
        _report_crash(event, experiment, terminal)


def _report_crash(event: dg.DagsterEvent, experiment: Experiment, terminal: Terminal) -> None:
    """A step that ended with something other than a PressError: show what Dagster recorded of it."""
    names = [name for name in STAGE_NAMES if event.step_key and event.step_key.endswith("__" + name)]
    for name in names:
        if name not in terminal.outcomes:
            error = event.step_failure_data.error
            told = error.to_string().strip() if error else event.message or "no message"
            terminal.stage_failed(name, StageError(name, f"it crashed in a run of {experiment.name}:\n{told}"))
