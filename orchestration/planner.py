"""Which stages are fresh, restorable or stale, and why; transitive, from the files as they are now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from assets.experiment import Experiment
from assets.recipes import open_sources, open_stages
from assets.stage import Stage
from orchestration.history import Recorded
from resources.registry.registry import Registry
from resources.store.keys import Key
from resources.store.store import Entry, Store

Status = Literal["fresh", "restore", "run", "maybe", "blocked"]


@dataclass(frozen=True)
class Reason:
    """One ingredient that differs from what the recorded materialization was made of."""

    ingredient: str
    was: Any
    now: Any


@dataclass(frozen=True)
class StagePlan:
    """What is to be done for one stage; `entry` is what the store holds for its key, if the key is known."""

    stage: Stage
    status: Status
    reasons: tuple[Reason, ...]
    expected_seconds: float | None
    inputs: Mapping[str, str] | None
    entry: Entry | None

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "status": self.status,
            "reasons": [vars(reason) for reason in self.reasons],
            "expected_seconds": self.expected_seconds,
        }


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment: its stages in order and the data versions of its sources."""

    experiment: Experiment
    sources: Mapping[str, str]
    stages: tuple[StagePlan, ...]

    def as_json(self) -> dict[str, Any]:
        return {"experiment": self.experiment.name, "stages": [stage.as_json() for stage in self.stages]}

    def stage(self, name: str) -> StagePlan:
        return next(stage for stage in self.stages if stage.stage.name == name)


def plan(
    experiment: Experiment,
    store: Store,
    registry: Registry,
    recorded: Mapping[str, Recorded],
    force: Iterable[str] = (),
) -> Plan:
    """The plan of `experiment`; a missing or wrong source or value is a ConfigurationError."""
    sources = {name: source.source_key(store.digests).id for name, source in open_sources(experiment).items()}
    versions: dict[str, str | None] = dict(sources)
    planned: list[StagePlan] = []
    seconds = expected_seconds(store, experiment.name)
    for name, stage in open_stages(experiment).items():
        stage.check()
        one = _plan_stage(stage, versions, store, registry, recorded.get(name))
        if name in force:
            one = replace(one, status="run", reasons=(*one.reasons, Reason("force", None, name)), entry=None)
        versions[name] = one.entry.digest if one.entry else None
        planned.append(replace(one, expected_seconds=_expected(one.status, seconds.get(name))))
    return Plan(experiment, sources, tuple(planned))


def _plan_stage(
    stage: Stage, versions: Mapping[str, str | None], store: Store, registry: Registry, recorded: Recorded | None
) -> StagePlan:
    known = {name: version for name in stage.made_from if (version := versions[name]) is not None}
    ingredients = stage.own_ingredients() | {f"input.{name}": versions[name] for name in stage.made_from}
    reasons = _reasons(ingredients, recorded, store)
    if len(known) < len(stage.made_from):
        return StagePlan(stage, "maybe", reasons, None, None, None)
    entry = store.find(Key(ingredients))
    if entry is None:
        failed = stage.failed_gates({name: store.open(known[name]) for name in stage.gate_inputs})
        if failed:
            gates = tuple(Reason(f"gate.{gate.name}", gate.measured, gate.threshold) for gate in failed)
            return StagePlan(stage, "blocked", gates, None, known, None)
        lost = recorded is not None and recorded.key_id == Key(ingredients).id
        return StagePlan(stage, "run", reasons or _no_artifact(lost), None, known, None)
    if _is_fresh(stage, entry, known, recorded) and stage.is_published(known, registry):
        return StagePlan(stage, "fresh", (), None, known, entry)
    return StagePlan(stage, "restore", reasons or (Reason("record", None, entry.digest),), None, known, entry)


def _is_fresh(stage: Stage, entry: Entry, inputs: Mapping[str, str], recorded: Recorded | None) -> bool:
    return (
        recorded is not None
        and recorded.key_id == entry.key_id
        and recorded.data_version == entry.digest
        and recorded.code_version == stage.code_version()
        and dict(recorded.inputs) == dict(inputs)
    )


def _reasons(now: Mapping[str, Any], recorded: Recorded | None, store: Store) -> tuple[Reason, ...]:
    """Old and new value of every ingredient that differs from the recorded materialization's."""
    before = store.entry(recorded.key_id) if recorded and recorded.key_id else None
    if before is None:
        return (Reason("history", None, "never materialized"),)
    was = before.ingredients
    names = [*now, *(name for name in was if name not in now)]
    return tuple(
        Reason(name, was.get(name), now.get(name))
        for name in names
        if json.dumps(was.get(name)) != json.dumps(now.get(name))
    )


def _no_artifact(lost: bool) -> tuple[Reason, ...]:
    return (Reason("artifact", "in the store" if lost else None, "not in the store"),)


def expected_seconds(store: Store, experiment: str) -> dict[str, float]:
    """Recipe name → seconds its latest computation took, this experiment's before another's."""
    latest: dict[str, tuple[bool, str, float]] = {}
    for entry in store.entries():
        name = str(entry.ingredients.get("recipe"))
        rank = (entry.provenance.get("experiment") == experiment, entry.built_at, entry.seconds)
        latest[name] = max(latest.get(name, rank), rank)
    return {name: seconds for name, (_, _, seconds) in latest.items()}


def _expected(status: Status, seconds: float | None) -> float | None:
    return seconds if status in ("run", "maybe") else 0.0
