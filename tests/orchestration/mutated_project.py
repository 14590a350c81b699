"""A project with one finished experiment for each mutation, before and after all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.build import Builder
from assets.experiment import Experiment, open_experiment
from assets.recipes import open_sources
from assets.stage import Attempt, Recipe
from orchestration.planner import Plan, Planner
from orchestration.recorded import SqliteRecords
from orchestration.registries import Registries
from orchestration.reports import open_events
from orchestration.restore import observe, restore_known
from orchestration.terminal import Terminal
from resources.calibration_text import PYTHON_DOCS, read
from resources.progress import RecordedProgress
from resources.store.store import Store
from tests.orchestration.cases import Case
from tests.orchestration.mutations import MUTATIONS, STAGES, case_name
from tests.project import Project

Plans = dict[str, dict[str, dict[str, Any]]]  # experiment → stage → what press plan --json says of it


@dataclass(frozen=True)
class MutatedProject:
    """The project after every mutation; `before` and `after` are its plans, by experiment."""

    project: Project
    before: Plans
    after: Plans

    def experiment(self, mutation: str) -> str:
        """The name of the experiment after the mutation."""
        return MUTATIONS[mutation].renamed or case_name(mutation)

    def planned(self, mutation: str) -> dict[str, dict[str, Any]]:
        return self.after[self.experiment(mutation)]


def plans(project: Project) -> Plans:
    """`press plan --all --json`; experiment → stage → its plan."""
    done = project.press("plan", "--all", "--json")
    assert done.returncode == 0, done.stderr
    experiments = json.loads(done.stdout)["experiments"]
    return {one["experiment"]: {stage["stage"]: stage for stage in one["stages"]} for one in experiments}


def create_mutated_project(finished: Project, base_model: Path, root: Path) -> MutatedProject:
    """A copy of `finished` with an experiment like its own for each mutation, all brought up to date, then mutated."""
    shutil.copytree(finished.root, root, symlinks=True)
    project = Project(root)
    document = Case(root, "tiny").document()
    text = read(PYTHON_DOCS, root)
    cases = {name: Case(root, case_name(name)) for name in MUTATIONS}
    for case in cases.values():
        case.create(document, project.data, base_model, text)
    _bring_up_to_date(project, [case.name for case in cases.values()])
    before = plans(project)
    for name, mutation in MUTATIONS.items():
        if mutation.known:
            mutation.change(cases[name])
            _compute(project, cases[name].name, mutation.known)
            cases[name].create(document, project.data, base_model, text)
    for name, mutation in MUTATIONS.items():
        mutation.change(cases[name])
    return MutatedProject(project, before, plans(project))


def _plan(project: Project, name: str) -> Plan:
    planner = Planner(Store(project.home), Registries(project.home), SqliteRecords(project.home))
    return planner.plan(_experiment(project, name))


def _experiment(project: Project, name: str) -> Experiment:
    return open_experiment(name, project.root / "experiments")


def _bring_up_to_date(project: Project, names: list[str]) -> None:
    """What press run does where everything is known, in one process."""
    planned = [_plan(project, name) for name in names]
    with open_events(project.home) as events:
        for plan in planned:
            observe(plan, events)
            assert restore_known(plan, set(STAGES), project.home, events, Terminal()) == []


def _compute(project: Project, name: str, stage: str) -> None:
    """Leave the artifact of a stage that needs no worker in the store, and tell Dagster nothing."""

    def launch(recipe: Recipe, folder: Path, scratch: Path, inputs: Mapping[str, Path]) -> Mapping[str, Any]:
        assert not recipe.heavy
        recipe.produce(Attempt(folder, scratch, inputs, RecordedProgress()))
        return {}

    one = _plan(project, name).stage(stage)
    assert one.status == "run" and one.inputs is not None
    sources = open_sources(one.stage.experiment)
    Builder(Store(project.home), sources, launch, {}).build(one.stage, one.inputs)
