"""What is asked of stages before anything of a run runs, so that a mistake in the last one does not cost the others."""

from __future__ import annotations

from collections.abc import Iterable

from assets.experiment import Experiment
from assets.recipes import open_stages
from orchestration.planner import Plan


def check_stages(experiment: Experiment, names: Iterable[str]) -> None:
    """Return when the stages `names` can be computed, as far as is seen before; a ConfigurationError says why not."""
    stages = open_stages(experiment)
    for name in (name for name in names if name in stages):
        # what a shared store has was computed where it could be
        here = experiment.compute.jobs_of(name) is None and experiment.store.remote is None
        stages[name].check_run(here)


def check_planned(planned: Plan, wanted: set[str]) -> None:
    """The same for the stages among `wanted` that `planned` may compute."""
    stale = [one.stage.name for one in planned.stages if one.stage.name in wanted and one.status in ("run", "maybe")]
    check_stages(planned.experiment, stale)
