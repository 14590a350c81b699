"""Building: an artifact is computed once, found again, and never half there."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources.store.store import Store
from tests.resources.store.artifacts import (
    FILES,
    content_of,
    files_in,
    key_of,
    left_behind,
    must_not_run,
    produces,
)


def test_looking_leaves_no_trace(home, store):
    assert store.find(key_of("a")) is None
    assert list(store.entries()) == []
    assert store.entry(key_of("a").id) is None
    assert store.verify().damaged == []
    assert store.repair().rebuild == []
    assert not home.exists()


def test_computed_once_and_reused_by_this_store_and_the_next(home, store):
    built = store.build(key_of("a"), produces(FILES))
    again = store.build(key_of("a"), must_not_run)
    elsewhere = Store(home).build(key_of("a"), must_not_run)
    assert (built.outcome, again.outcome, elsewhere.outcome) == ("computed", "reused", "reused")
    assert built.entry == again.entry == elsewhere.entry


def test_what_is_opened_is_what_was_produced(store):
    entry = store.build(key_of("a"), produces(FILES)).entry
    assert files_in(store.open(entry.digest)) == FILES
    assert store.manifest(entry.digest).bytes == sum(map(len, FILES.values()))


def test_the_digest_is_the_content_and_the_key_is_not(store):
    one = store.build(key_of("a"), produces(FILES)).entry
    same = store.build(key_of("b"), produces(FILES)).entry
    other = store.build(key_of("c"), produces(FILES | {"config.json": b'{"bits": 8}'})).entry
    assert one.digest == same.digest != other.digest


def test_equal_files_lie_in_the_store_once(home, store):
    store.build(key_of("a"), produces(FILES))
    store.build(key_of("b"), produces(FILES | {"one more": b"x"}))
    blobs = [path for path in (home / "store" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == len(set(FILES.values())) + 1
    assert store.verify().blobs == len(blobs)


def test_an_entry_says_what_went_in_and_where_from(home, store):
    store.build(key_of("a"), produces(FILES), {"host": "laptop", "run_id": "7"})
    (entry,) = Store(home).entries()
    assert entry.key_id == key_of("a").id
    assert entry.ingredients == key_of("a").ingredients
    assert entry.provenance == {"host": "laptop", "run_id": "7"}
    assert entry.seconds > 0
    assert entry.built_at.endswith("+00:00")


def test_force_computes_again_and_the_key_then_names_the_new_artifact(store):
    old = store.build(key_of("a"), produces({"weights": b"old"})).entry
    new = store.build(key_of("a"), produces({"weights": b"new"}), force=True)
    assert new.outcome == "computed"
    assert content_of(store, "a") == {"weights": b"new"}
    assert files_in(store.open(old.digest)) == {"weights": b"old"}


def test_a_failing_produce_leaves_nothing_but_its_scratch(home, store):
    def fails(folder: Path, scratch: Path) -> None:
        (folder / "half").write_bytes(b"half")
        (scratch / "checkpoint").write_bytes(b"step 20")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.build(key_of("a"), fails)
    assert store.find(key_of("a")) is None
    assert left_behind(home) == [key_of("a").id]


def test_the_next_attempt_finds_the_scratch_of_the_interrupted_one(home, store):
    def interrupted(folder: Path, scratch: Path) -> None:
        (scratch / "checkpoint").write_bytes(b"step 20")
        raise KeyboardInterrupt

    def goes_on(folder: Path, scratch: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "adapter").write_bytes((scratch / "checkpoint").read_bytes() + b", step 30")

    with pytest.raises(KeyboardInterrupt):
        store.build(key_of("a"), interrupted)
    store.build(key_of("a"), goes_on)
    assert content_of(store, "a") == {"adapter": b"step 20, step 30"}
    assert left_behind(home) == []


def test_building_one_artifact_may_build_another_on_the_way(home, store):
    def produce(folder: Path, scratch: Path) -> None:
        part = store.build(key_of("part"), produces({"graph": b"graph"})).entry
        (folder / "graph").write_bytes((store.open(part.digest) / "graph").read_bytes())
        (folder / "adapter").write_bytes(b"adapter")

    store.build(key_of("whole"), produce)
    assert content_of(store, "whole") == {"graph": b"graph", "adapter": b"adapter"}
    assert content_of(store, "part") == {"graph": b"graph"}
    assert left_behind(home) == []


def test_a_file_linked_from_an_input_shares_its_blob(home, store):
    part = store.build(key_of("part"), produces({"graph": b"graph" * 1000})).entry

    def produce(folder: Path, scratch: Path) -> None:
        (folder / "model.onnx").hardlink_to(store.open(part.digest) / "graph")
        (folder / "adapter").write_bytes(b"adapter")

    whole = store.build(key_of("whole"), produce).entry
    assert files_in(store.open(whole.digest)) == {"model.onnx": b"graph" * 1000, "adapter": b"adapter"}
    assert files_in(store.open(part.digest)) == {"graph": b"graph" * 1000}
    assert store.verify().blobs == 2


def test_committing_moves_the_bytes_and_does_not_copy_them(home, store):
    produced: list[int] = []

    def produce(folder: Path, scratch: Path) -> None:
        (folder / "weights").write_bytes(b"w" * 5000)
        produced.append((folder / "weights").stat().st_ino)

    digest = store.build(key_of("a"), produce).entry.digest
    assert (store.open(digest) / "weights").stat().st_ino == produced[0]


@pytest.mark.parametrize("ingredients", [{"recipe": "a", "spec.n": {1: "x"}}, {"recipe": "a", "spec.n": float("nan")}])
def test_odd_ingredients_are_refused_or_found_again(store, ingredients):
    from resources.store.keys import Key

    try:
        store.build(Key(ingredients), produces(FILES))
    except TypeError:
        return
    assert store.find(Key(ingredients)) is not None
