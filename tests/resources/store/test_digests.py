"""File digests: a file at rest is read once, and no edit is missed."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from resources.errors import ConfigurationError
from resources.store.digests import RACY_SECONDS, FileDigests
from resources.store.manifest import FileRecord, Manifest

ROWS = b"one\n" * 1000


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def rested_files(tmp_path_factory) -> list[Path]:
    """Files that nobody wrote to for long enough to be trusted by their stamps."""
    folder = tmp_path_factory.mktemp("rested")
    for number in range(20):
        (folder / f"{number:02}").write_bytes(ROWS)
    time.sleep(RACY_SECONDS + 0.1)
    return sorted(folder.iterdir())


@pytest.fixture
def rested(rested_files) -> Path:
    """One of them for this test alone."""
    return rested_files.pop()


def test_a_file_and_its_edits(tmp_path):
    digests, path = FileDigests(tmp_path / "cache.sqlite"), tmp_path / "rows.jsonl"
    for content in (b"one", b"two", b"", b"three"):
        path.write_bytes(content)
        assert digests.file(path) == sha256(content)


def test_an_edit_in_the_same_moment_with_the_same_size_is_seen(tmp_path):
    digests, path = FileDigests(tmp_path / "cache.sqlite"), tmp_path / "rows.jsonl"
    path.write_bytes(b"0000")
    for number in range(300):
        content = f"{number:04}".encode()
        with path.open("r+b") as file:
            file.write(content)
        assert digests.file(path) == sha256(content)


def test_an_edit_that_puts_the_old_time_back_is_seen(tmp_path, rested):
    digests = FileDigests(tmp_path / "cache.sqlite")
    digests.file(rested)
    status = rested.stat()
    with rested.open("r+b") as file:
        file.write(b"two\n")
    os.utime(rested, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert rested.stat().st_mtime_ns == status.st_mtime_ns
    assert digests.file(rested) == sha256(b"two\n" + ROWS[4:])


def test_a_file_at_rest_is_served_from_the_cache_in_this_process_and_the_next(tmp_path, rested):
    cache = tmp_path / "cache.sqlite"
    digests = FileDigests(cache)
    digest = digests.file(rested)
    # Only a cache that is believed can answer with what stands in it.
    _write_marker(cache)
    assert digests.file(rested) == digest
    assert FileDigests(cache).file(rested) == "marker"


def _write_marker(cache: Path) -> None:
    with closing(sqlite3.connect(cache)) as connection, connection:
        assert connection.execute("UPDATE digests SET sha256 = 'marker'").rowcount == 1


def test_a_file_just_written_is_not_remembered(tmp_path):
    cache, path = tmp_path / "cache.sqlite", tmp_path / "rows.jsonl"
    path.write_bytes(b"fresh")
    FileDigests(cache).file(path)
    assert not cache.exists()


def test_a_damaged_cache_costs_time_and_not_truth(tmp_path, rested):
    cache = tmp_path / "cache.sqlite"
    cache.write_bytes(b"no database at all" * 100)
    assert FileDigests(cache).file(rested) == sha256(rested.read_bytes())
    FileDigests(cache).file(rested)
    _write_marker(cache)
    assert FileDigests(cache).file(rested) == "marker"


def _digest_many(cache: Path, paths: list[Path]) -> list[str]:
    digests = FileDigests(cache)
    return [digests.file(path) for path in paths]


def test_processes_write_to_one_cache_at_once(tmp_path, rested_files):
    cache, paths = tmp_path / "cache.sqlite", rested_files[:12]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        answers = pool.starmap(_digest_many, [(cache, paths)] * 4)
    assert answers == [[sha256(ROWS)] * len(paths)] * 4
    with closing(sqlite3.connect(cache)) as connection:
        assert connection.execute("SELECT count(*) FROM digests").fetchone() == (len(paths),)


def test_a_folder_is_the_manifest_of_its_files(tmp_path):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "deep" / "weights").write_bytes(b"abc")
    records = (FileRecord("config.json", 2, sha256(b"{}")), FileRecord("deep/weights", 3, sha256(b"abc")))
    assert FileDigests(tmp_path / "cache.sqlite").folder(folder) == Manifest(records).digest


def test_links_to_files_count_as_files_since_hub_caches_are_made_of_them(tmp_path):
    digests = FileDigests(tmp_path / "cache.sqlite")
    plain, linked = tmp_path / "plain", tmp_path / "linked"
    plain.mkdir()
    linked.mkdir()
    (plain / "config.json").write_bytes(b"{}")
    (linked / "config.json").symlink_to(plain / "config.json")
    assert digests.folder(linked) == digests.folder(plain)


def test_what_is_not_there_is_named(tmp_path):
    digests = FileDigests(tmp_path / "cache.sqlite")
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl: found nothing; accepted: a file"):
        digests.file(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigurationError, match="model: found nothing; accepted: a folder"):
        digests.folder(tmp_path / "model")


def test_a_link_to_a_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    with pytest.raises(ConfigurationError, match="link to a folder"):
        FileDigests(tmp_path / "cache.sqlite").folder(folder)
