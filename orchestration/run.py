"""press run: restore what the store holds, run the rest in one Dagster run, say what became of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock

from assets.experiment import Experiment
from assets.recipes import STAGE_NAMES, open_stages
from orchestration.experiment_assets import build_definitions
from orchestration.history import asset_key, recorded_materializations, report_observations, report_restored
from orchestration.interrupted import close_interrupted_runs, process_tags
from orchestration.planner import Plan, StagePlan, plan
from orchestration.terminal import StageOutcome, Terminal
from resources.compute import LocalCompute
from resources.errors import ConfigurationError, PressError, StageError
from resources.registry.local import LocalRegistry
from resources.store.store import Store


@dataclass(frozen=True)
class RunReport:
    """What a run did: one outcome for each stage, in order, and the seconds in all."""

    experiment: str
    seconds: float
    stages: tuple[StageOutcome, ...]

    @property
    def exit_code(self) -> int:
        return max((_exit_code(stage) for stage in self.stages), default=0)

    def as_json(self) -> dict[str, Any]:
        stages = [
            {
                "stage": stage.stage,
                "outcome": stage.outcome,
                "seconds": round(stage.seconds, 3),
                "data_version": stage.data_version,
                **({"error": str(stage.error)} if stage.error else {}),
            }
            for stage in self.stages
        ]
        return {"experiment": self.experiment, "seconds": round(self.seconds, 3), "stages": stages}


def _exit_code(stage: StageOutcome) -> int:
    if stage.outcome not in ("failed", "blocked"):
        return 0
    return stage.error.exit_code if stage.error else 1


def run(
    experiment: Experiment,
    home: Path,
    instance: dg.DagsterInstance,
    terminal: Terminal,
    select: Iterable[str] = (),
    force: Iterable[str] = (),
    show_bars: bool = False,
) -> RunReport:
    """Bring `select` (every stage where empty) and what they are made from up to date."""
    started = time.monotonic()
    wanted = _with_inputs(experiment, select, force)
    with _one_run_at_a_time(home, experiment.name):
        close_interrupted_runs(instance)
        store, registry = Store(home), LocalRegistry(home)
        recorded = recorded_materializations(instance, experiment.name)
        planned = plan(experiment, store, registry, recorded, force)
        report_observations(instance, experiment.name, planned.sources)
        pending = settle_known(planned, wanted, store, registry, instance, terminal)
        if pending:
            _materialize(experiment, pending, instance, terminal, show_bars)
    _complete(planned, terminal)
    outcomes = tuple(terminal.outcomes[name] for name in STAGE_NAMES)
    return RunReport(experiment.name, time.monotonic() - started, outcomes)


def settle_known(
    planned: Plan,
    wanted: set[str],
    store: Store,
    registry: LocalRegistry,
    instance: dg.DagsterInstance,
    terminal: Terminal,
) -> list[str]:
    """Report fresh and restored stages; return the names of those that need a run."""
    pending: list[str] = []
    for one in planned.stages:
        name = one.stage.name
        if name not in wanted:
            terminal.stage_not_selected(name)
        elif one.status == "fresh":
            terminal.stage_finished(name, "fresh", 0.0, _digest(one))
        elif one.status == "restore":
            began = time.monotonic()
            assert one.entry is not None and one.inputs is not None
            one.stage.publish(store.open(one.entry.digest), one.inputs, registry)
            report_restored(instance, store, one.stage, one.entry, one.inputs)
            terminal.stage_finished(name, "restored", time.monotonic() - began, one.entry.digest)
        else:
            pending.append(name)
    return pending


def _digest(one: StagePlan) -> str:
    assert one.entry is not None  # a fresh stage has its artifact
    return one.entry.digest


def _materialize(
    experiment: Experiment, pending: list[str], instance: dg.DagsterInstance, terminal: Terminal, show_bars: bool
) -> None:
    definitions = build_definitions([experiment], LocalCompute(show_bars), terminal)
    keys = [asset_key(experiment.name, name) for name in pending]
    selection = dg.AssetSelection.assets(*keys)
    job = dg.define_asset_job("press_run", selection=selection)
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


def _complete(planned: Plan, terminal: Terminal) -> None:
    """Give every stage that never began, because one before it failed, its outcome."""
    stopped = next((one for one in terminal.outcomes.values() if one.error), None)
    for one in planned.stages:
        name = one.stage.name
        if name in terminal.outcomes:
            continue
        if stopped is None:
            raise PressError(f"{name}: the run ended without an outcome; its events are in the Dagster UI (press dev)")
        terminal.stage_failed(name, PressError(f"{name} was not reached: {stopped.stage} {stopped.outcome}"), True)


def _with_inputs(experiment: Experiment, select: Iterable[str], force: Iterable[str]) -> set[str]:
    """The selected stages and, through their inputs, every stage they are made from."""
    stages = open_stages(experiment)
    waiting = list(select) or list(stages)
    for name in [*waiting, *force]:
        if name not in stages:
            raise ConfigurationError("--select or --force", repr(name), ", ".join(stages))
    wanted: set[str] = set()
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting.extend(parent for parent in stages[name].made_from if parent in stages)
    return wanted


def _one_run_at_a_time(home: Path, experiment: str) -> FileLock:
    """Two runs of one experiment would tell Dagster two stories; the second waits for the first."""
    folder = home / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{experiment}.lock")
