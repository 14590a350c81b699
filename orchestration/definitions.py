"""What Dagster loads: the definitions of every experiment file, as it is when the code location loads."""

from __future__ import annotations

from assets.experiment import list_experiments, open_experiment
from orchestration.experiment_assets import build_definitions

defs = build_definitions(open_experiment(name) for name in list_experiments())
