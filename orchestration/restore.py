"""Restoring: what the store holds is recorded again; nothing runs, no bytes move, and Dagster is not imported."""

from __future__ import annotations

import time
from pathlib import Path

from orchestration.kept_facts import KeptFacts
from orchestration.metadata import metadata
from orchestration.planner import Plan
from orchestration.registries import Registries
from orchestration.reports import Events, report_observations, report_restored
from orchestration.savings import Savings, saving
from orchestration.terminal import Terminal
from resources.store.store import Store


def observe(planned: Plan, events: Events) -> None:
    """Tell Dagster the data versions of the sources that are not those it observed last."""
    report_observations(events, planned.experiment.name, planned.history.sources, planned.sources)


def restore_known(planned: Plan, wanted: set[str], home: Path, events: Events, terminal: Terminal) -> list[str]:
    """Restore what the store holds; returns the names of the stages that need a run."""
    store, registries, savings = Store(home), Registries(home), Savings(home)
    kept = KeptFacts(home, store)
    pending: list[str] = []
    for one in planned.stages:
        name = one.stage.name
        if name not in wanted or one.status == "fresh":
            continue
        if one.status != "restore" or one.entry is None or one.inputs is None:
            pending.append(name)
            continue
        began = time.monotonic()
        version = registries.publish(one.stage, store.open(one.entry.digest), one.inputs)
        saved = saving(store, planned.experiment.name, name, "restored", time.monotonic() - began, one.entry)
        shown = metadata(one.stage, kept, one.entry, one.inputs, saved, version)
        report_restored(events, one.stage, one.entry, one.inputs, shown)
        savings.add([saved])
        terminal.stage_finished(saved, one.entry.digest)
    return pending
