"""press run: plan, bring up to date what is not fresh, say what became of each stage. Imports Dagster only to work."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.experiment import Experiment
from assets.recipes import STAGE_NAMES, open_stages
from orchestration.before_run import check_planned
from orchestration.planner import Plan, Planner
from orchestration.recorded import open_records
from orchestration.registries import Registries
from orchestration.remotes import Remotes
from orchestration.reports import open_events
from orchestration.restore import observe, restore_known
from orchestration.run_processes import has_interrupted_run
from orchestration.savings import Saving, Savings, saving
from orchestration.terminal import StageOutcome, Terminal
from orchestration.turns import Turns
from resources.errors import ConfigurationError, PressError
from resources.preloaded import PreloadedWorkers
from resources.store.remote import RemoteDamageError
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

    @property
    def saved_seconds(self) -> float:
        """What the artifacts that were not computed again took when they were."""
        return sum(stage.saved_seconds for stage in self.stages)

    @property
    def saved_bytes(self) -> int:
        return sum(stage.saved_bytes for stage in self.stages)

    def as_json(self) -> dict[str, Any]:
        stages = [
            {
                "stage": stage.stage,
                "outcome": stage.outcome,
                "seconds": round(stage.seconds, 3),
                "data_version": stage.data_version,
                "saved_seconds": round(stage.saved_seconds, 3),
                "saved_bytes": stage.saved_bytes,
                **({"error": str(stage.error)} if stage.error else {}),
            }
            for stage in self.stages
        ]
        return {
            "experiment": self.experiment,
            "seconds": round(self.seconds, 3),
            "saved_seconds": round(self.saved_seconds, 3),
            "saved_bytes": self.saved_bytes,
            "stages": stages,
        }


def _exit_code(stage: StageOutcome) -> int:
    if stage.outcome not in ("failed", "blocked"):
        return 0
    return stage.error.exit_code if stage.error else 1


def run(
    experiment: Experiment,
    home: Path,
    terminal: Terminal,
    select: Iterable[str] = (),
    force: Iterable[str] = (),
    show_bars: bool = False,
    remotes: Remotes | None = None,
) -> RunReport:
    """Bring `select` (every stage where empty) and what they are made from up to date."""
    started = time.monotonic()
    remotes = remotes or Remotes(home)
    wanted = _with_inputs(experiment, select, force)
    turns = Turns(home)
    with turns.take(experiment.name, terminal.waiting):
        with open_records(home) as records:
            planned = Planner(Store(home), Registries(home), records).plan(experiment, force)
        _report_fresh(planned, wanted, home, terminal)
        if warning := check_planned(planned, wanted):
            terminal.warned(warning)
        _check_registry(planned, wanted, home)
        _check_computes(planned, wanted, home, remotes)
        _share_known(planned, wanted, remotes, terminal)
        pending: list[str] = []
        workers = PreloadedWorkers()
        if _needs_workers(planned, wanted):
            workers.start()  # it imports while this process imports Dagster
        if not planned.is_observed or any(name not in terminal.outcomes for name in wanted):
            with open_events(home) as events:
                observe(planned, events)
                pending = restore_known(planned, wanted, home, events, terminal)
        if pending:
            from orchestration.materialization import materialize
            from resources.compute import LocalCompute

            materialize(experiment, pending, home, turns, terminal, LocalCompute(show_bars, workers), remotes)
        elif has_interrupted_run(home):
            from orchestration.interrupted import close_interrupted_runs_under

            close_interrupted_runs_under(home)
    _complete(planned, terminal)
    outcomes = tuple(terminal.outcomes[name] for name in STAGE_NAMES)
    return RunReport(experiment.name, time.monotonic() - started, outcomes)


def _report_fresh(planned: Plan, wanted: set[str], home: Path, terminal: Terminal) -> None:
    """Report the stages that nothing is to be done for, and keep what they saved."""
    store = Store(home)
    savings: list[Saving] = []
    for one in planned.stages:
        name = one.stage.name
        if name not in wanted:
            terminal.stage_not_selected(name)
        elif one.status == "fresh" and one.entry is not None:
            savings.append(saving(store, planned.experiment.name, name, "fresh", 0.0, one.entry))
            store.use(one.entry.digest)
            terminal.stage_finished(savings[-1], one.entry.digest)
    Savings(home).add(savings)


def _check_registry(planned: Plan, wanted: set[str], home: Path) -> None:
    """Ask, before anything runs, whether what is to be registered can be."""
    for one in planned.stages:
        if one.stage.registers and one.stage.name in wanted and one.status in ("run", "maybe", "restore"):
            Registries(home).check(planned.experiment)


def _check_computes(planned: Plan, wanted: set[str], home: Path, remotes: Remotes) -> None:
    """Ask, before anything runs, whether jobs can be started where some are to be."""
    stale = [one.stage.name for one in planned.stages if one.stage.name in wanted and one.status in ("run", "maybe")]
    if any(planned.experiment.compute.jobs_of(name) for name in stale):
        from orchestration.computes import Computes
        from resources.compute import LocalCompute

        Computes(Store(home), LocalCompute(), remotes).check(planned.experiment, stale)


def _needs_workers(planned: Plan, wanted: set[str]) -> bool:
    """Whether workers of this machine will most likely be asked for; an input that turns out the same needs none."""
    if planned.experiment.store.remote is not None:
        return False
    jobs_of = planned.experiment.compute.jobs_of
    stale = [one.stage for one in planned.stages if one.stage.name in wanted and one.status in ("run", "maybe")]
    return any(stage.heavy and jobs_of(stage.name) is None for stage in stale)


def _share_known(planned: Plan, wanted: set[str], remotes: Remotes, terminal: Terminal) -> None:
    """Ask, before anything runs, whether the shared store can be used, and push what an earlier run could not."""
    stale = [one for one in planned.stages if one.stage.name in wanted and one.status in ("run", "maybe", "restore")]
    pushes = remotes.pushes(planned.experiment)
    if any(pushes or one.entry is None for one in stale):
        remotes.check(planned.experiment)
    remote = remotes.of(planned.experiment)
    for one in stale:
        if pushes and remote is not None and one.entry is not None:
            try:
                remote.push(one.entry.key_id)
            except RemoteDamageError as damage:
                terminal.warned(f"{damage}. What is here is complete")


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
