"""What Dagster loads: the definitions of every experiment file, as it is when the code location loads."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from assets.experiment import Experiment, list_experiments, open_experiment
from assets.recipes import STAGES
from assets.stage import Stage
from orchestration.experiment_assets import build_definitions
from orchestration.history import asset_key
from orchestration.sensors import SECONDS_BETWEEN_LOOKS, up_to_date_sensor
from resources.errors import ConfigurationError


def load_definitions(seconds_between_looks: int = SECONDS_BETWEEN_LOOKS) -> dg.Definitions:
    """The definitions of every experiment; a mistake in a file ends the load with a message that the UI shows.

    A run's process leaves such a file out, so that one that is half edited stops no run of another experiment; a run
    of its own fails with the message.
    """
    is_run = DefinitionsLoadContext.get().load_type == DefinitionsLoadType.RECONSTRUCTION
    experiments: list[Experiment] = []
    mistaken: list[dg.AssetsDefinition] = []
    for name in list_experiments():
        try:
            experiments.append(open_experiment(name))
        except ConfigurationError as mistake:
            if not is_run:
                raise
            mistaken += [_failing_asset(name, stage, str(mistake)) for stage in STAGES]
    sensors = [up_to_date_sensor(experiment, seconds_between_looks) for experiment in experiments]
    return dg.Definitions.merge(build_definitions(experiments, sensors=sensors), dg.Definitions(assets=mistaken))


def _failing_asset(experiment: str, stage: type[Stage], mistake: str) -> dg.AssetsDefinition:
    @dg.asset(key=asset_key(experiment, stage.name), deps=[asset_key(experiment, name) for name in stage.made_from])
    def body() -> None:
        raise dg.Failure(mistake, allow_retries=False)

    return body


defs = load_definitions()
