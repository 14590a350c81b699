"""What Dagster loads: the definitions of every experiment file, as it is when the code location loads."""

from __future__ import annotations

import sys

from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from assets.experiment import Experiment, list_experiments, open_experiment
from orchestration.experiment_assets import build_definitions
from orchestration.sensors import up_to_date_sensor
from resources.errors import ConfigurationError


def open_experiments() -> list[Experiment]:
    """Every experiment; a mistake in a file ends the load with a message that the UI shows.

    The process of a run leaves such a file out and says so: a half-edited experiment stops no run of another.
    """
    is_run = DefinitionsLoadContext.get().load_type == DefinitionsLoadType.RECONSTRUCTION
    experiments: list[Experiment] = []
    for name in list_experiments():
        try:
            experiments.append(open_experiment(name))
        except ConfigurationError as mistake:
            if not is_run:
                raise
            sys.stderr.write(f"press: {mistake}\n")
    return experiments


experiments = open_experiments()
defs = build_definitions(experiments, sensors=[up_to_date_sensor(experiment) for experiment in experiments])
