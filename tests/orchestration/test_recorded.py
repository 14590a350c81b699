"""Histories read straight from Dagster's file are those that its API gives, and its API is asked where they cannot be.

The project of the mutation table has stages that ran, that were restored and that were observed again; here some are
wiped, restored after that, and materialized by hand.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from orchestration.history import InstanceRecords, asset_key, open_instance
from orchestration.recorded import DATA_VERSION, MANY, SqliteRecords, open_records
from tests.orchestration.mutations import STAGES
from tests.project import Project

FEW = ["tiny", "compute.device", "dataset.seed", "another-name", "never-ran"]
WIPED, WIPED_AND_BACK, WIPED_SOURCE, BY_HAND = "eval_report.rows", "eval_report.seed", "dataset.path", "lora_adapter.r"


@pytest.fixture(scope="module")
def home(mutated_project, tmp_path_factory) -> Path:
    """The records of the mutated project, with more of what can happen to them in the Dagster UI."""
    home = tmp_path_factory.mktemp("recorded") / "home"
    shutil.copytree(mutated_project.project.home / "dagster", home / "dagster")
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(asset_key(WIPED_AND_BACK, "onnx_model"))
        assert event is not None and event.asset_materialization is not None
        instance.wipe_assets([asset_key(WIPED, stage) for stage in STAGES])
        instance.wipe_assets([asset_key(WIPED_AND_BACK, "onnx_model"), asset_key(WIPED_AND_BACK, "lora_adapter")])
        instance.wipe_assets([asset_key(WIPED_SOURCE, "source_data")])
        instance.report_runless_asset_event(event.asset_materialization)
        for stage in ("registered_model", "eval_report"):  # as the button in the UI does it, without tags
            instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(BY_HAND, stage)))
        by_hand = dg.AssetMaterialization(asset_key(BY_HAND, "source_data"), tags={DATA_VERSION: "by hand"})
        instance.report_runless_asset_event(by_hand)
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(BY_HAND, "base_model")))
        instance.wipe_assets([asset_key("tiny", "dataset")])
    return home


@pytest.fixture(scope="module")
def through_dagster(home) -> Iterator[InstanceRecords]:
    with open_instance(home) as instance:
        yield InstanceRecords(instance)


@pytest.mark.parametrize("name", [*FEW, WIPED, WIPED_AND_BACK, WIPED_SOURCE, BY_HAND])
def test_a_history_is_what_dagster_says(name, home, through_dagster):
    assert SqliteRecords(home).is_readable()
    assert SqliteRecords(home).histories([name]) == through_dagster.histories([name])


def test_histories_of_many_are_those_of_each(home, mutated_project):
    names = [*mutated_project.after, "never-ran"]
    assert len(names) > MANY
    records = SqliteRecords(home)
    assert records.histories(names) == {name: records.histories([name])[name] for name in names}


def test_what_is_wiped_is_gone_and_what_came_back_is_there(home):
    histories = SqliteRecords(home).histories([WIPED, WIPED_AND_BACK, WIPED_SOURCE, "never-ran"])
    assert histories["never-ran"].stages == histories[WIPED].stages == {}
    assert histories[WIPED].sources.keys() == {"source_data", "base_model", "calibration_text"}
    assert histories[WIPED_AND_BACK].stages.keys() == set(STAGES) - {"lora_adapter"}
    assert histories[WIPED_SOURCE].sources.keys() == {"base_model", "calibration_text"}


def test_the_later_of_observation_and_materialization_tells_a_source(home):
    sources = SqliteRecords(home).histories([BY_HAND])[BY_HAND].sources
    assert (sources["source_data"], sources["base_model"]) == ("by hand", "")
    assert len(sources["calibration_text"]) == 64


@pytest.mark.parametrize("stage", STAGES)
def test_the_latest_of_a_stage_is_what_dagster_says(stage, home, through_dagster):
    assert SqliteRecords(home).latest(stage) == through_dagster.latest(stage)


def test_nothing_is_recorded_before_the_first_run(tmp_path):
    with open_records(tmp_path) as records:
        assert isinstance(records, SqliteRecords)
        assert records.histories(["tiny"])["tiny"].stages == {}
        assert records.latest("dataset") is None


def test_another_storage_is_asked_through_dagster(project):
    """Dagster's own words for records in another place, and the press command as before."""
    settings = project.home / "dagster" / "dagster.yaml"
    moved = project.root / "elsewhere"
    (project.home / "dagster" / "history").rename(moved)
    storage = "module: dagster._core.storage.event_log\n  class: SqliteEventLogStorage\n  config:\n    base_dir: "
    settings.write_text(f"{settings.read_text()}event_log_storage:\n  {storage}{moved / 'runs'}\n")
    assert not SqliteRecords(project.home).is_readable()
    with open_records(project.home) as records:
        assert isinstance(records, InstanceRecords)
    _plans_and_runs(project)


def test_a_form_of_the_file_that_is_not_known_is_asked_through_dagster(project):
    with closing(sqlite3.connect(project.home / "dagster" / "history" / "runs" / "index.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    assert not SqliteRecords(project.home).is_readable()
    with open_records(project.home) as records:
        assert isinstance(records, InstanceRecords)
    assert {stage["status"] for stage in project.plan().values()} == {"fresh"}


def _plans_and_runs(project: Project) -> None:
    assert {stage["status"] for stage in project.plan().values()} == {"fresh"}
    project.edit("registered_model", tags={"team": "a"})
    assert project.run()["registered_model"] == "computed"
    assert {stage["status"] for stage in project.plan().values()} == {"fresh"}
