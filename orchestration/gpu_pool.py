"""Dagster's pool `gpu`: as many stages at once as there are GPUs.

The pool is what the UI shows and holds back; that two stages never share a GPU is seen to by its lease, which covers
every run of this user on the machine. Without a GPU the pool has no limit: a stage on the CPU waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from assets.experiment import Experiment
from assets.recipes import GPU_STAGES
from orchestration.history import open_instance
from orchestration.interrupted import close_interrupted_runs
from resources.accelerators import Accelerators

POOL = "gpu"


def holds_pool(experiment: Experiment, stage: str) -> bool:
    """Whether the stage may compute on a GPU of this machine: not where it must not, and not as a job."""
    compute = experiment.compute
    return stage in GPU_STAGES and compute.device != "cpu" and compute.jobs_of(stage) is None


def size_pool(instance: dg.DagsterInstance, slots: int) -> None:
    """Give the pool `slots` slots, or no limit where that is 0."""
    storage = instance.event_log_storage
    known = POOL in storage.get_concurrency_keys()
    if slots:
        storage.set_concurrency_slots(POOL, slots)
    elif known:
        storage.delete_concurrency_limit(POOL)


def prepare_instance(home: Path) -> None:
    """Size the pool for the UI, with the slots of runs that were killed free again."""
    with open_instance(home) as instance:
        close_interrupted_runs(instance)
        size_pool(instance, Accelerators().slots())


def tell_full(instance: dg.DagsterInstance, on_wait: Callable[[str], None]) -> None:
    """Call `on_wait` with a line where other runs hold every slot, because Dagster then waits in silence."""
    storage = instance.event_log_storage
    if POOL in storage.get_concurrency_keys():
        found = storage.get_concurrency_info(POOL)
        if found.active_slot_count >= found.slot_count:
            on_wait(f"other stages hold all {found.slot_count} slots of the pool {POOL}; a stage that needs one waits")
