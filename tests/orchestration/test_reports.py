"""Events without a run: the same whether Dagster writes them or they go straight into its files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest

from orchestration import runless
from orchestration.history import InstanceEvents, asset_key, open_instance
from orchestration.metadata import Markdown, Table
from orchestration.recorded import SqliteRecords
from orchestration.reports import open_events
from orchestration.runless import SqliteEvents

TAGS = {"dagster/data_version": "a" * 64, "dagster/code_version": "c" * 64, "press/outcome": "restored"}
METADATA = {
    "text": "naïve “text”\nof two lines",
    "whole": 3,
    "float": 0.1,
    "markdown": Markdown("# title\n\n![plot](data:image/png;base64,AA==)"),
    "rows": Table({"name": "string", "count": "int", "share": "float"}, [{"name": "a", "count": 1, "share": None}]),
    "nothing": Table({}, []),
}


@pytest.fixture
def home(tmp_path) -> Path:
    """A home in which Dagster has written an event without a run and a materialization of the asset."""
    with open_instance(tmp_path) as instance:
        first = InstanceEvents(instance)
        first.observed(["tiny", "source_data"], {"dagster/data_version": "0" * 64})
        first.materialized(["tiny", "dataset"], TAGS | {"dagster/data_version": "1" * 64}, {"key": "0"})
    return tmp_path


def write(events) -> None:
    events.materialized(["tiny", "dataset"], TAGS, METADATA)
    events.materialized(["tiny", "new"], TAGS, {})
    events.observed(["tiny", "source_data"], {"dagster/data_version": "b" * 64})
    events.observed(["tiny", "new_source"], {"dagster/data_version": "b" * 64})


def rows(home: Path, shard: str) -> dict[str, list[dict]]:
    """Every row of the tables that events go to, documents parsed, times left out."""
    found: dict[str, list[dict]] = {}
    with closing(sqlite3.connect(home / "dagster" / "history" / "runs" / shard)) as connection:
        connection.row_factory = sqlite3.Row
        for table in ("event_logs", "asset_keys", "asset_event_tags"):
            found[table] = [
                {name: parsed(value) for name, value in dict(row).items() if "timestamp" not in name}
                for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")
            ]
    return found


def parsed(value):
    if not isinstance(value, str) or not value.startswith("{"):
        return value
    document = json.loads(value)
    document.get("event_log_entry", document)["timestamp"] = 0
    return document


def test_both_ways_leave_the_same_rows(home, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "home"
    shutil.copytree(home, other)
    with open_instance(other) as instance:
        write(InstanceEvents(instance))
    assert SqliteEvents(home).is_writable()
    write(SqliteEvents(home))
    for shard in (".db", "index.db"):
        assert rows(home, shard) == rows(other, shard)
    with closing(sqlite3.connect(home / "dagster/history/runs/index.db")) as connection:
        stamps = connection.execute("SELECT typeof(timestamp), length(timestamp) FROM event_logs").fetchall()
    assert len(set(stamps)) == 1


def test_dagster_reads_what_was_written_straight_into_its_files(home):
    write(SqliteEvents(home))
    with open_instance(home) as instance:
        event = instance.get_latest_materialization_event(asset_key("tiny", "dataset"))
        assert event.asset_materialization.tags == TAGS
        metadata = event.asset_materialization.metadata
        assert metadata["rows"].records[0].data == {"name": "a", "count": 1, "share": None}
        assert isinstance(metadata["markdown"], dg.MarkdownMetadataValue) and metadata["whole"].value == 3
        observed = instance.fetch_observations(asset_key("tiny", "source_data"), limit=1).records[0]
        assert observed.asset_observation.tags["dagster/data_version"] == "b" * 64
        InstanceEvents(instance).materialized(["tiny", "dataset"], TAGS | {"dagster/data_version": "2" * 64}, {})
    history = SqliteRecords(home).histories(["tiny"])["tiny"]
    assert history.stages["dataset"].data_version == "2" * 64


@pytest.mark.parametrize("change", ["another schema", "another storage", "no history"])
def test_files_of_another_form_are_left_to_dagster(home, change):
    runs = home / "dagster" / "history" / "runs"
    if change == "another schema":
        with closing(sqlite3.connect(runs / ".db")) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = '567bc23fd1ac'")
    elif change == "another storage":
        settings = {"module": "dagster._core.storage.event_log", "class": "ConsolidatedSqliteEventLogStorage",
                    "config": {"base_dir": str(home / "elsewhere")}}  # fmt: skip
        with (home / "dagster" / "dagster.yaml").open("a") as file:
            file.write(json.dumps({"event_log_storage": settings})[1:-1] + "\n")
    else:
        shutil.rmtree(runs)
    assert not SqliteEvents(home).is_writable()
    with open_events(home) as events:
        events.observed(["tiny", "source_data"], {"dagster/data_version": "b" * 64})
    with open_instance(home) as instance:
        records = instance.fetch_observations(asset_key("tiny", "source_data"), limit=1).records
        assert records[0].asset_observation.tags["dagster/data_version"] == "b" * 64


def test_the_documents_are_those_of_the_dagster_that_is_pinned():
    assert version("dagster") == runless.DAGSTER
