"""press plan: plans of experiments as their files are now; Dagster is told only what it has not observed yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from assets.experiment import Experiment, list_experiments, open_experiment
from orchestration.planner import Plan, Planner
from orchestration.recorded import open_records
from orchestration.registries import Registries
from orchestration.reports import open_events
from orchestration.restore import observe
from resources.errors import ConfigurationError
from resources.store.store import Store


def plan_one(home: Path, name: str) -> Plan:
    """The plan of the experiment `name`; a mistake in its file is a ConfigurationError."""
    experiment = open_experiment(name)
    with open_records(home) as records:
        planned = Planner(Store(home), Registries(home), records).plan(experiment)
    _observe(home, [planned])
    return planned


def plan_all(home: Path) -> tuple[list[Plan], dict[str, ConfigurationError]]:
    """The plans of every experiment, and what is wrong with those that cannot be planned, by name."""
    opened: list[Experiment] = []
    mistakes: dict[str, ConfigurationError] = {}
    plans: list[Plan] = []
    for name in list_experiments():
        try:
            opened.append(open_experiment(name))
        except ConfigurationError as mistake:
            mistakes[name] = mistake
    with open_records(home) as records:
        planner = Planner(Store(home), Registries(home), records)
        histories = records.histories(experiment.name for experiment in opened)
        for experiment in opened:
            try:
                plans.append(planner.plan(experiment, history=histories[experiment.name]))
            except ConfigurationError as mistake:
                mistakes[experiment.name] = mistake
    _observe(home, plans)
    return plans, mistakes


def _observe(home: Path, plans: Iterable[Plan]) -> None:
    unobserved = [planned for planned in plans if not planned.is_observed]
    if not unobserved:
        return
    with open_events(home) as events:
        for planned in unobserved:
            observe(planned, events)
