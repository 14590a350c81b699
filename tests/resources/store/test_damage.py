"""Damage of every kind: never served, found by verify, and repaired or said to be lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.store.keys import Key
from resources.store.store import Store
from tests.resources.store.artifacts import (
    FILES,
    blob_with,
    content_of,
    files_in,
    flip_byte,
    key_of,
    must_not_run,
    produces,
    rot,
    truncate,
)

LAYER = FILES["weights/layer.bin"]
OTHER = {"one": b"1" * 100}


@pytest.fixture
def filled(home, store) -> Store:
    store.build(key_of("a"), produces(FILES))
    store.build(key_of("other"), produces(OTHER))
    return store


def manifest_of(home: Path, name: str) -> Path:
    return home / "store" / "manifests" / f"{Store(home).entry(key_of(name).id).digest}.json"


def key_file(home: Path, name: str) -> Path:
    return home / "store" / "keys" / f"{key_of(name).id}.json"


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


WAYS = [flip_byte, truncate, delete, empty, replace_by_folder, replace_by_link]
PLACES: dict[str, Callable[[Path], Path]] = {
    "blob": lambda home: blob_with(home, LAYER),
    "manifest": lambda home: manifest_of(home, "a"),
    "key": lambda home: key_file(home, "a"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", PLACES)
def test_a_damaged_artifact_is_not_served_and_is_rebuilt(home, filled, kind, way):
    way(PLACES[kind](home))
    assert content_of(Store(home), "a") is None
    assert filled.build(key_of("a"), produces(FILES)).outcome == "computed"
    assert content_of(filled, "a") == FILES
    assert content_of(filled, "other") == OTHER
    assert filled.verify().damaged == []


@pytest.mark.parametrize("way", [*WAYS, rot], ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", PLACES)
def test_verify_finds_it_and_repair_says_what_is_lost(home, filled, kind, way):
    path = PLACES[kind](home)
    way(path)
    found = filled.verify().damaged
    assert [(item["kind"], item["path"]) for item in found] == [(kind, path.relative_to(home / "store").as_posix())]
    assert found[0]["reason"]
    repaired = filled.repair()
    assert filled.verify().damaged == []
    assert content_of(filled, "other") == OTHER
    if kind == "key":
        assert (repaired.mended, repaired.dropped, repaired.rebuild) == (found, [], [])
        assert filled.build(key_of("a"), must_not_run).outcome == "reused"
        assert content_of(filled, "a") == FILES
        return
    assert repaired.dropped == found
    assert [(item["stage"], item["key_id"]) for item in repaired.rebuild] == [("awq_model", key_of("a").id)]
    assert filled.find(key_of("a")) is None
    filled.build(key_of("a"), produces(FILES))
    assert content_of(filled, "a") == FILES


def spare_key_file(home: Path, name: str) -> Path:
    return home / "store" / "spare_keys" / f"{key_of(name).id}.json"


@pytest.mark.parametrize("way", [*WAYS, rot], ids=lambda way: way.__name__)
def test_a_damaged_spare_key_is_found_and_made_anew(home, filled, way):
    way(spare_key_file(home, "a"))
    found = filled.verify().damaged
    assert [item["kind"] for item in found] == ([] if way is delete else ["spare_key"])  # without one all is there
    repaired = filled.repair()
    assert (repaired.mended, repaired.dropped, repaired.rebuild) == (found, [], [])
    assert spare_key_file(home, "a").read_bytes() == key_file(home, "a").read_bytes()
    assert filled.verify().damaged == []
    assert filled.build(key_of("a"), must_not_run).outcome == "reused"


def test_a_key_lost_together_with_its_spare_is_built_again(home, filled):
    key_file(home, "a").unlink()
    spare_key_file(home, "a").unlink()
    assert filled.verify().damaged == []  # nothing tells that there ever was one
    assert filled.build(key_of("a"), produces(FILES)).outcome == "computed"
    assert content_of(filled, "a") == FILES


def test_a_key_and_a_blob_lost_together_are_said_to_be_lost(home, filled):
    key_file(home, "a").unlink()
    blob_with(home, LAYER).unlink()
    assert {item["kind"] for item in filled.verify().damaged} == {"key", "blob"}
    assert [item["key_id"] for item in filled.repair().rebuild] == [key_of("a").id]
    assert filled.verify().damaged == []
    assert filled.find(key_of("a")) is None


def test_what_gc_freed_leaves_no_spare_key(home, filled):
    filled.gc(0, set())
    assert list((home / "store" / "spare_keys").iterdir()) == []
    assert filled.verify().damaged == []


def test_after_a_forced_rebuild_a_lost_key_comes_back_with_the_new_artifact(home, filled):
    new = filled.build(key_of("a"), produces({"weights": b"new"}), force=True).entry.digest
    key_file(home, "a").unlink()
    filled.repair()
    assert filled.find(key_of("a")).digest == new


@pytest.mark.parametrize("way", [flip_byte, truncate, delete, empty], ids=lambda way: way.__name__)
def test_a_manifest_is_mended_from_the_tree(home, filled, way):
    digest = filled.find(key_of("a")).digest
    filled.open(digest)
    way(manifest_of(home, "a"))
    repaired = filled.repair()
    assert [item["kind"] for item in repaired.mended][:1] == ["manifest"]
    assert (repaired.dropped, repaired.rebuild) == ([], [])
    assert filled.build(key_of("a"), must_not_run).entry.digest == digest
    assert filled.verify().damaged == []


def test_a_deleted_blob_is_mended_from_the_tree(home, filled):
    filled.open(filled.find(key_of("a")).digest)
    blob_with(home, LAYER).unlink()
    repaired = filled.repair()
    assert [item["kind"] for item in repaired.mended] == ["blob"]
    assert repaired.rebuild == []
    assert content_of(filled, "a") == FILES


def test_manifest_and_blob_lost_together_are_mended_from_the_tree(home, filled):
    filled.open(filled.find(key_of("a")).digest)
    manifest_of(home, "a").unlink()
    blob_with(home, LAYER).unlink()
    assert filled.repair().rebuild == []
    assert content_of(filled, "a") == FILES
    assert filled.verify().damaged == []


def test_a_blob_that_rotted_is_not_taken_back_from_its_own_link(home, filled):
    tree = filled.open(filled.find(key_of("a")).digest)
    rot(blob_with(home, LAYER))
    repaired = filled.repair()
    assert [item["digest"] for item in repaired.rebuild] == [tree.name]
    assert not tree.exists()
    filled.build(key_of("a"), produces(FILES))
    assert content_of(filled, "a") == FILES


def test_verify_names_the_stages_that_lose_their_artifact(home, filled):
    flip_byte(blob_with(home, LAYER))
    (damage,) = filled.verify().damaged
    assert damage["stages"] == ["awq_model"]
    assert damage["digest"] in damage["path"]


def test_an_altered_tree_is_found_and_dropped(home, filled):
    tree = filled.open(filled.find(key_of("a")).digest)
    (tree / "config.json").unlink()
    (tree / "config.json").write_bytes(FILES["config.json"][::-1])
    (damage,) = filled.verify().damaged
    assert (damage["kind"], damage["digest"], damage["reason"]) == ("tree", tree.name, "config.json was altered")
    assert filled.repair().rebuild == []
    assert content_of(filled, "a") == FILES


def test_a_blob_shared_by_two_artifacts_takes_both_with_it_and_no_third(home, filled):
    filled.build(key_of("b"), produces({"layer": LAYER}))
    rot(blob_with(home, LAYER))
    assert {item["key_id"] for item in filled.repair().rebuild} == {key_of("a").id, key_of("b").id}
    assert content_of(filled, "other") == OTHER


def test_strange_files_are_found_and_removed(home, filled):
    store = home / "store"
    strange = [store / "blobs" / "notes.txt", store / "blobs" / "ab" / "notes.txt", store / "keys" / "notes.txt"]
    strange += [store / "manifests" / "notes.txt", store / "trees" / "notes.txt"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text("strange")
    assert {item["path"] for item in filled.verify().damaged} == {
        path.relative_to(store).as_posix() for path in strange
    }
    filled.repair()
    assert [path for path in strange if path.exists()] == []
    assert content_of(filled, "a") == FILES


def test_a_manifest_under_the_name_of_another_is_not_believed(home, filled):
    shutil.copy(manifest_of(home, "other"), manifest_of(home, "a"))
    assert filled.find(key_of("a")) is None
    assert [item["kind"] for item in filled.verify().damaged] == ["manifest"]


@pytest.mark.parametrize("kind", ["manifest", "key"])
def test_no_single_bit_changes_unnoticed(home, store, kind):
    digest = store.build(key_of("é"), produces({"one": b"1"}), {"host": "laptop"}).entry.digest
    path = key_file(home, "é") if kind == "key" else manifest_of(home, "é")
    content = path.read_bytes()
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert store.find(key_of("é")) is None, f"bit {bit}"
    path.write_bytes(content)
    assert store.find(key_of("é")).digest == digest


def test_a_key_file_under_the_name_of_another_is_not_believed(home, filled):
    shutil.copy(key_file(home, "other"), key_file(home, "a"))
    assert filled.find(key_of("a")) is None
    assert [item["kind"] for item in filled.verify().damaged] == ["key"]


def test_a_store_copied_without_its_times_is_whole(home, filled, tmp_path):
    shutil.copytree(home, tmp_path / "copied", copy_function=shutil.copyfile)
    copied = Store(tmp_path / "copied")
    assert copied.build(key_of("a"), must_not_run).outcome == "reused"
    assert content_of(copied, "a") == FILES
    repaired = copied.repair()
    assert (repaired.dropped, repaired.rebuild) == ([], [])
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "copied/store/blobs").rglob("*/*")} == {0o444}


def test_an_entry_with_the_ingredients_of_another_key_is_not_believed(home, filled):
    entry = filled.entry(key_of("a").id)
    key_file(home, "a").write_bytes(replace(entry, ingredients=key_of("other").ingredients).to_json())
    assert filled.find(key_of("a")) is None
    assert [item["kind"] for item in filled.verify().damaged] == ["key"]


def test_a_stage_that_does_not_reproduce_is_rebuilt_and_what_came_from_the_old_artifact_stays(home, filled):
    def report_on(awq_model: str) -> Key:
        return Key({"recipe": "eval_report", "input.awq_model": awq_model})

    old = filled.find(key_of("a")).digest
    about_old = filled.build(report_on(old), produces({"report": b"about the old one"})).entry
    rot(blob_with(home, LAYER))
    assert [item["key_id"] for item in filled.repair().rebuild] == [key_of("a").id]
    new = filled.build(key_of("a"), produces(FILES | {"weights/layer.bin": LAYER[::-1]})).entry.digest
    assert new != old
    assert filled.find(report_on(new)) is None
    about_new = filled.build(report_on(new), produces({"report": b"about the new one"})).entry
    assert filled.find(report_on(old)) == about_old
    assert files_in(filled.open(about_old.digest)) == {"report": b"about the old one"}
    assert files_in(filled.open(about_new.digest)) == {"report": b"about the new one"}
    with pytest.raises(StageError, match="does not have its manifest"):
        filled.open(old)
    assert filled.ancestors([about_new.digest]) == {about_new.digest, new}
    assert filled.verify().damaged == []


def test_repair_sweeps_what_nobody_needs_any_more(home, filled):
    leftover = home / "store" / "scratch" / key_of("a").id
    leftover.mkdir(parents=True)
    (leftover / "checkpoint").write_bytes(b"step 20")
    filled.repair()
    assert not leftover.exists()
