"""Kept facts: a restored stage shows what the computed one showed, and a damaged or missing file costs time only."""

from __future__ import annotations

import pytest

from assets.experiment import read_experiment
from assets.recipes import open_stages
from orchestration.kept_facts import KeptFacts
from orchestration.recorded import SqliteRecords
from resources.store.store import Store


@pytest.fixture
def drawn(project):
    """(stage, digest, facts as drawn) of the lora_adapter, which has numbers, tables, plots and texts."""
    stage = open_stages(read_experiment(project.root / "experiments" / "tiny.yaml"))["lora_adapter"]
    digest = SqliteRecords(project.home).histories(["tiny"])["tiny"].stages["lora_adapter"].data_version
    facts = stage.facts(Store(project.home).open(digest))
    assert facts.numbers and facts.tables and facts.plots and facts.texts
    return stage, digest, facts


def kept(project) -> KeptFacts:
    return KeptFacts(project.home, Store(project.home))


def test_facts_are_the_same_whether_drawn_or_kept(project, drawn):
    stage, digest, facts = drawn
    assert list((project.home / "facts").glob(f"{digest}-*.json"))  # the run that computed it kept them
    assert kept(project).facts(stage, digest) == facts
    for file in (project.home / "facts").iterdir():
        file.unlink()
    assert kept(project).facts(stage, digest) == facts
    assert kept(project).facts(stage, digest) == facts


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"numbers": {}}'])
def test_a_damaged_file_is_drawn_anew(project, drawn, damage):
    stage, digest, facts = drawn
    for file in (project.home / "facts").glob(f"{digest}-*.json"):
        file.write_text(damage)
    assert kept(project).facts(stage, digest) == facts
