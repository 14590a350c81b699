"""Which stages are fresh, restorable or stale, and why; transitive, from the files as they are now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from assets.experiment import Experiment
from assets.recipes import open_sources, open_stages
from assets.stage import Source, Stage
from orchestration.explanation import Reason, changed_ingredients
from orchestration.recorded import History, Recorded, Records
from orchestration.registries import Registries
from resources.store.keys import Key
from resources.store.store import Entry, Store

Status = Literal["fresh", "restore", "run", "maybe", "blocked"]


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
            "reasons": [reason.as_json() for reason in self.reasons],
            "expected_seconds": self.expected_seconds,
        }


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment: stages in order, data versions of sources, and the history it was held against."""

    experiment: Experiment
    sources: Mapping[str, str]
    stages: tuple[StagePlan, ...]
    history: History

    def as_json(self) -> dict[str, Any]:
        return {"experiment": self.experiment.name, "stages": [stage.as_json() for stage in self.stages]}

    def stage(self, name: str) -> StagePlan:
        return next(stage for stage in self.stages if stage.stage.name == name)

    @property
    def is_fresh(self) -> bool:
        return all(stage.status == "fresh" for stage in self.stages)

    @property
    def is_observed(self) -> bool:
        """Whether Dagster has the sources' data versions as they are now."""
        return all(self.history.sources.get(name) == version for name, version in self.sources.items())


class Planner:
    """Plans experiments against what the store holds, the registries know and Dagster recorded."""

    def __init__(self, store: Store, registries: Registries, records: Records) -> None:
        self._store = store
        self._registries = registries
        self._records = records

    def plan(self, experiment: Experiment, force: Iterable[str] = (), history: History | None = None) -> Plan:
        """The plan of `experiment`, held against `history` where that was read already.

        A missing or wrong source or value is a ConfigurationError.
        """
        history = history or self._records.histories([experiment.name])[experiment.name]
        sources = open_sources(experiment)
        source_versions = {name: source.source_key(self._store.digests).id for name, source in sources.items()}
        versions: dict[str, str | None] = dict(source_versions)
        planned: list[StagePlan] = []
        for name, stage in open_stages(experiment).items():
            stage.check()
            one = self._plan_stage(stage, versions, sources, history.stages.get(name))
            if name in force:
                one = replace(one, status="run", reasons=(*one.reasons, Reason("force", None, name)), entry=None)
            versions[name] = one.entry.digest if one.entry else None
            planned.append(replace(one, expected_seconds=self._expected_seconds(one, history)))
        return Plan(experiment, source_versions, tuple(planned), history)

    def _plan_stage(
        self,
        stage: Stage,
        versions: Mapping[str, str | None],
        sources: Mapping[str, Source],
        recorded: Recorded | None,
    ) -> StagePlan:
        known = {name: version for name in stage.made_from if (version := versions[name]) is not None}
        own, seen = stage.own_ingredients(), stage.seen(known, self._store)
        ingredients = own | {f"input.{name}": seen.get(name) for name in stage.made_from}
        if len(known) < len(stage.made_from):
            return StagePlan(stage, "maybe", self._reasons(stage, ingredients, recorded, sources), None, None, None)
        entry = self._store.find(Key(ingredients))
        if entry is None:
            return self._plan_run(stage, ingredients, known, sources, recorded)
        if _is_fresh(Key(own).id, entry, known, recorded) and self._registries.is_published(stage, known):
            return StagePlan(stage, "fresh", (), None, known, entry)
        reasons = self._reasons(stage, ingredients, recorded, sources) or _record_behind(recorded, entry, known)
        return StagePlan(stage, "restore", reasons, None, known, entry)

    def _plan_run(
        self,
        stage: Stage,
        ingredients: Mapping[str, Any],
        known: Mapping[str, str],
        sources: Mapping[str, Source],
        recorded: Recorded | None,
    ) -> StagePlan:
        failed = stage.failed_gates({name: self._store.open(known[name]) for name in stage.gate_inputs})
        if failed:
            gates = tuple(Reason(f"gate.{gate.name}", gate.measured, gate.threshold) for gate in failed)
            changed = self._reasons(stage, ingredients, recorded, sources) if recorded else ()
            return StagePlan(stage, "blocked", (*gates, *changed), None, known, None)
        lost = recorded is not None and recorded.key_id == Key(ingredients).id
        reasons = self._reasons(stage, ingredients, recorded, sources)
        return StagePlan(stage, "run", reasons or _no_artifact(lost), None, known, None)

    def _reasons(
        self,
        stage: Stage,
        now: Mapping[str, Any],
        recorded: Recorded | None,
        sources: Mapping[str, Source],
    ) -> tuple[Reason, ...]:
        """Old and new value of every ingredient that differs from the recorded materialization's."""
        if recorded is None:
            return (Reason("history", None, "never materialized"),)
        before = self._store.entry(recorded.key_id) if recorded.key_id else None
        if before is None:
            return (Reason("history", recorded.key_id, "the store no longer knows what it was made of"),)
        return changed_ingredients(stage, now, before, self._store, sources)

    def _expected_seconds(self, one: StagePlan, history: History) -> float | None:
        """What the latest computation took, this experiment's before another's; None where none is known."""
        if one.status not in ("run", "maybe"):
            return 0.0
        recorded = history.stages.get(one.stage.name) or self._records.latest(one.stage.name)
        entry = self._store.entry(recorded.key_id) if recorded and recorded.key_id else None
        return entry.seconds if entry else None


def _is_fresh(code_version: str, entry: Entry, inputs: Mapping[str, str], recorded: Recorded | None) -> bool:
    return (
        recorded is not None
        and recorded.key_id == entry.key_id
        and recorded.data_version == entry.digest
        and recorded.code_version == code_version
        and dict(recorded.inputs) == dict(inputs)
    )


def _record_behind(recorded: Recorded | None, entry: Entry, inputs: Mapping[str, str]) -> tuple[Reason, ...]:
    """Nothing that the stage sees changed, but what Dagster recorded of it did: an input in files it does not see."""
    before = recorded.inputs if recorded else {}
    behind = [name for name in inputs if before.get(name) != inputs[name]]
    told = tuple(Reason(f"record.{name}", before.get(name), inputs[name]) for name in behind)
    return told or (Reason("record", recorded.data_version if recorded else None, entry.digest),)


def _no_artifact(lost: bool) -> tuple[Reason, ...]:
    return (Reason("artifact", "in the store" if lost else None, "not in the store"),)
