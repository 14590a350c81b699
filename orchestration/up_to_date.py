"""Bringing an experiment up to date: restores are told to Dagster at once, the rest is one run in this process."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg

from assets.experiment import Experiment
from assets.recipes import STAGE_NAMES
from orchestration.experiment_assets import build_definitions
from orchestration.history import asset_key, open_instance, report_observations, report_restored
from orchestration.interrupted import close_interrupted_runs, process_tags
from orchestration.kept_facts import KeptFacts
from orchestration.planner import Plan
from orchestration.savings import Savings, saving
from orchestration.terminal import Terminal
from orchestration.turns import Turns
from resources.compute import LocalCompute
from resources.errors import StageError
from resources.registry.local import LocalRegistry
from resources.store.store import Store


def bring_up_to_date(
    planned: Plan, wanted: set[str], home: Path, turns: Turns, terminal: Terminal, show_bars: bool
) -> None:
    """Restore and run what `planned` says of the `wanted` stages; the caller has the experiment's turn."""
    with open_instance(home) as instance:
        close_interrupted_runs(instance)
        observe(planned, instance)
        pending = restore_known(planned, wanted, home, instance, terminal)
        if pending:
            _materialize(planned.experiment, pending, instance, turns, terminal, show_bars)


def observe(planned: Plan, instance: dg.DagsterInstance) -> None:
    """Tell Dagster the data versions of the sources that are not those it observed last."""
    report_observations(instance, planned.experiment.name, planned.history.sources, planned.sources)


def restore_known(
    planned: Plan,
    wanted: set[str],
    home: Path,
    instance: dg.DagsterInstance,
    terminal: Terminal,
) -> list[str]:
    """Restore what the store holds; returns the names of the stages that need a run."""
    store, registry, savings = Store(home), LocalRegistry(home), Savings(home)
    kept = KeptFacts(home, store)
    pending: list[str] = []
    for one in planned.stages:
        name = one.stage.name
        if name not in wanted or one.status == "fresh":
            continue
        if one.status != "restore" or one.entry is None or one.inputs is None:
            pending.append(name)
            continue
        began = time.monotonic()
        one.stage.publish(store.open(one.entry.digest), one.inputs, registry)
        saved = saving(store, planned.experiment.name, name, "restored", time.monotonic() - began, one.entry)
        report_restored(instance, kept, one.stage, one.entry, one.inputs, saved)
        savings.add([saved])
        terminal.stage_finished(saved, one.entry.digest)
    return pending


def _materialize(
    experiment: Experiment,
    pending: list[str],
    instance: dg.DagsterInstance,
    turns: Turns,
    terminal: Terminal,
    show_bars: bool,
) -> None:
    definitions = build_definitions([experiment], LocalCompute(show_bars), terminal, turns)
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
