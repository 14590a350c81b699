"""What is asked of stages before anything of a run runs, so that a mistake in the last one does not cost the others."""

from __future__ import annotations

from collections.abc import Iterable

from assets.experiment import Experiment
from assets.recipes import GPU_STAGES, open_stages
from orchestration.planner import Plan
from resources.accelerators import Accelerators


def check_stages(experiment: Experiment, names: Iterable[str], accelerators: Accelerators | None = None) -> str:
    """Return when the stages `names` can be computed, as far as is seen before; a ConfigurationError says why not.

    The text is a warning: why they will not compute on the GPU that is here; empty for most.
    """
    stages, warning = open_stages(experiment), ""
    for name in (name for name in names if name in stages):
        # what a shared store has was computed where it could be
        here = experiment.compute.jobs_of(name) is None and experiment.store.remote is None
        stages[name].check_run(here)
        if here and name in GPU_STAGES and not warning:
            place = f"{experiment.name}.yaml: compute.device"
            warning = (accelerators or Accelerators()).choose(experiment.compute.device, place).warning
    return warning


def check_planned(planned: Plan, wanted: set[str]) -> str:
    """The same for the stages among `wanted` that `planned` may compute."""
    stale = [one.stage.name for one in planned.stages if one.stage.name in wanted and one.status in ("run", "maybe")]
    return check_stages(planned.experiment, stale)
