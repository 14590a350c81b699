"""Keys: one ingredient, one test. Every mutation makes stale what it must and nothing else; the table is complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

import assets.experiment
from assets.experiment import Experiment, Spec, read_experiment
from assets.recipes import SOURCES as SOURCE_CLASSES
from assets.recipes import STAGES as STAGE_CLASSES
from resources.store.store import Store
from tests.orchestration.mutations import FIELDS, IGNORES, MADE_FROM, MUTATIONS, PLACES, SOURCES, STAGES

PARTS = [part for stage in STAGE_CLASSES for part in stage.parts]
# Fields that enter the own key of a part, too.
FIELDS_OF_PARTS = {
    "onnx_graph": {"onnx_model.provider", "onnx_model.head", "onnx_model.accuracy_level", "onnx_model.olive_passes"},
    "onnx_graph_exact": set(),
}


def test_before_any_mutation_everything_is_fresh(mutated_project):
    assert len(mutated_project.before) == len(MUTATIONS) + 1
    for name, stages in mutated_project.before.items():
        assert {stage: (one["status"], one["reasons"]) for stage, one in stages.items()} == dict.fromkeys(
            STAGES, ("fresh", [])
        ), name


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_makes_stale_what_it_must_and_nothing_else(name, mutated_project):
    found = {
        stage: (one["status"], {reason["ingredient"] for reason in one["reasons"]})
        for stage, one in mutated_project.planned(name).items()
    }
    assert found == MUTATIONS[name].planned()


@pytest.mark.parametrize("place", [place for place in FIELDS if not place.startswith("base_model.")])
def test_a_changed_field_is_told_with_its_old_and_new_value(place, mutated_project):
    section, _, field = place.partition(".")
    reasons = [reason for reason in _reasons(mutated_project.planned(place)) if reason["ingredient"].startswith("spec")]
    if "run" not in FIELDS[place][1]:
        assert reasons == []
        return
    was: Any = getattr(read_experiment(mutated_project.project.root / "experiments" / "tiny.yaml"), section)
    for part in field.split("."):
        was = getattr(was, part)
    assert reasons == [
        {"ingredient": f"spec.{field}", "was": _as_json(was), "now": FIELDS[place][0]},
    ]


def test_no_two_mutations_of_a_source_give_it_the_same_data_version(mutated_project):
    """But for two ways to name the same file, and two ways to change the same bytes."""
    alike = {
        frozenset({"base_model.package", "base_model.file"}),
        frozenset({"a row changed", "a row changed unnoticeably", "rows behind a link changed"}),
    }
    by_version: dict[str, set[str]] = {}
    for name in MUTATIONS:
        for reason in _reasons(mutated_project.planned(name)):
            if reason["ingredient"].removeprefix("input.") in SOURCES:
                by_version.setdefault(reason["now"], set()).add(name)
    assert len(by_version) > 15
    assert {frozenset(names) for names in by_version.values() if len(names) > 1} == alike


def test_the_table_shows_every_status(mutated_project):
    shown = {one["status"] for name in MUTATIONS for one in mutated_project.planned(name).values()}
    assert shown == {"fresh", "restore", "run", "maybe", "blocked"}


def test_every_spec_field_has_a_row():
    assert dict(_fields(Experiment)).keys() == FIELDS.keys() | PLACES.keys()


def test_every_spec_is_part_of_an_experiment():
    specs = {value for value in vars(assets.experiment).values() if isinstance(value, type) and issubclass(value, Spec)}
    assert specs - {Spec, Experiment} == {spec for spec, _ in _specs(Experiment)}


def test_every_edge_has_a_row(mutated_project):
    assert {stage.name: stage.made_from for stage in STAGE_CLASSES} == MADE_FROM
    assert {source.name for source in SOURCE_CLASSES} == set(SOURCES)
    seen = {
        (stage, reason["ingredient"].removeprefix("input."))
        for name in MUTATIONS
        for stage, one in mutated_project.planned(name).items()
        for reason in one["reasons"]
        if reason["ingredient"].startswith("input.")
    }
    assert seen == {(stage, name) for stage, inputs in MADE_FROM.items() for name in inputs}


@pytest.mark.parametrize("stage", STAGE_CLASSES, ids=lambda stage: stage.name)
def test_each_input_alone_changes_the_key(stage, mutated_project):
    opened = stage(read_experiment(mutated_project.project.root / "experiments" / "tiny.yaml"))
    seen = {name: str(number) * 64 for number, name in enumerate(stage.made_from)}
    changed = [seen | {name: "f" * 64} for name in seen]
    reordered = dict(zip(seen, reversed(seen.values()), strict=True))
    wanted = len(seen) + (2 if len(seen) > 1 else 1)
    assert len({opened.key(one).id for one in (seen, reordered, *changed)}) == wanted


def test_every_ignored_file_of_an_input_has_a_row(mutated_project):
    assert {stage.name: dict(stage.ignores) for stage in STAGE_CLASSES if stage.ignores} == IGNORES
    store = Store(mutated_project.project.home)
    left = {entry.ingredients["recipe"]: store.open(entry.digest) for entry in store.entries()}
    for inputs in IGNORES.values():
        assert all((left[name] / file).is_file() for name, files in inputs.items() for file in files)


def test_a_field_enters_the_key_of_a_part_only_where_it_decides_it(mutated_project):
    experiments = mutated_project.project.root / "experiments"
    before = read_experiment(experiments / "tiny.yaml")
    found = {
        part.name: {
            place
            for place in FIELDS
            if part(read_experiment(experiments / f"{place}.yaml")).code_version() != part(before).code_version()
        }
        for part in PARTS
    }
    assert found == FIELDS_OF_PARTS


@pytest.mark.parametrize("stage", [stage for stage in STAGE_CLASSES if stage.parts], ids=lambda stage: stage.name)
def test_what_changes_a_part_changes_its_stage(stage, mutated_project):
    """A part is looked up only when its stage is built, so nothing may change it and leave the stage fresh."""
    experiment = read_experiment(mutated_project.project.root / "experiments" / "tiny.yaml")
    tools = {name for name in stage(experiment).own_ingredients() if name.startswith("tool.")}
    for part in stage.parts:
        assert set(part.made_from) <= set(stage.made_from)
        assert all(set(stage.ignores.get(name, ())) <= set(part.ignores.get(name, ())) for name in part.made_from)
        assert {name for name in part(experiment).own_ingredients() if name.startswith("tool.")} <= tools
        assert part(experiment).modules().items() <= stage(experiment).modules().items()


def _reasons(planned: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [reason for one in planned.values() for reason in one["reasons"]]


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _specs(spec: type[Spec]) -> Iterator[tuple[type[Spec], str]]:
    """Every spec inside `spec`, with the place it has there."""
    for name, field in spec.model_fields.items():
        for inner in _inner_specs(field.annotation):
            yield inner, name
            yield from ((deeper, f"{name}.{place}") for deeper, place in _specs(inner))


def _inner_specs(annotation: Any) -> list[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [spec for argument in get_args(annotation) for spec in _inner_specs(argument)]


def _fields(spec: type[Spec], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that is no section itself; name and root of an experiment come from where its file lies."""
    for name, field in spec.model_fields.items():
        if inner := _inner_specs(field.annotation):
            for one in inner:
                yield from _fields(one, f"{place}{name}.")
        elif place:
            yield f"{place}{name}", field
