"""The definitions of experiments: sources, six assets and gate checks each, and the resources they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from assets.checks import gate_checks
from assets.experiment import Experiment
from assets.recipes import open_sources, open_stages
from orchestration.computes import Computes
from orchestration.kept_facts import KeptFacts
from orchestration.registries import Registries
from orchestration.remotes import Remotes
from orchestration.savings import Savings
from orchestration.stage_asset import source_asset, stage_asset
from orchestration.terminal import Terminal
from orchestration.turns import Turns
from resources.compute import Compute, LocalCompute
from resources.home import press_home
from resources.store.store import Store


def build_definitions(
    experiments: Iterable[Experiment],
    compute: Compute | None = None,
    terminal: Terminal | None = None,
    turns: Turns | None = None,
    sensors: Iterable[dg.SensorDefinition] = (),
    remotes: Remotes | None = None,
) -> dg.Definitions:
    """The Dagster definitions of `experiments`, with the store and what is known of registries under PRESS_HOME.

    A run is one process: what takes long is done by worker processes, and a process for each step would only wait.
    """
    assets: list[Any] = []
    checks: list[dg.AssetChecksDefinition] = []
    for experiment in experiments:
        assets += [source_asset(source) for source in open_sources(experiment).values()]
        assets += [stage_asset(stage) for stage in open_stages(experiment).values()]
        checks += gate_checks(experiment)
    home = press_home()
    store = Store(home)
    remotes = remotes or Remotes(home)
    resources = {
        "store": store,
        "facts": KeptFacts(home, store),
        "registries": Registries(home),
        "computes": Computes(store, compute or LocalCompute(), remotes),
        "terminal": terminal or Terminal(),
        "turns": turns or Turns(home),
        "savings": Savings(home),
        "remotes": remotes,
    }
    executor = dg.in_process_executor
    return dg.Definitions(
        assets=assets, asset_checks=checks, sensors=list(sensors), resources=resources, executor=executor
    )
