"""Garbage collection: least recently used first, nothing that is needed, and never half of anything."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.store.gc import Collected
from resources.store.keys import Key
from resources.store.layout import Layout
from resources.store.lease import Leases
from resources.store.store import Store
from resources.store.use import hold_unused
from tests.resources.store.artifacts import (
    FILES,
    content_of,
    files_in,
    flip_byte,
    key_of,
    left_behind,
    must_not_run,
    produces,
)
from tests.resources.store.test_full_disk import fill
from tests.resources.store.test_killed import kill_everywhere

NOW = time.time()
DAY = 86400.0


def of_size(name: str, size: int) -> dict[str, bytes]:
    return {"weights": name.encode().ljust(size, b".")}


def add(store: Store, name: str, size: int = 100, *, days: float) -> str:
    """Build an artifact of `size` bytes that was last used `days` ago; its digest."""
    digest = store.build(key_of(name), produces(of_size(name, size))).entry.digest
    return used(store, digest, days)


def used(store: Store, digest: str, days: float) -> str:
    os.utime(store._layout.manifest(digest), (NOW - days * DAY, NOW - days * DAY))
    return digest


def stages(done: Collected) -> list[str]:
    return [row["digest"] for row in done.freed]


def state(home: Path) -> dict[Path, tuple[int, ...]]:
    """Everything below `home` as far as its inodes tell."""
    items = {path: path.lstat() for path in (home, *home.rglob("*"))}
    return {path: (item.st_mtime_ns, item.st_ctime_ns, item.st_ino, item.st_size) for path, item in items.items()}


def size_of_blobs(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "store" / "blobs").glob("*/*"))


def test_the_least_recently_used_goes_first_and_no_more_than_must(home, store):
    middle, oldest, newest = (add(store, name, days=days) for name, days in [("m", 2), ("o", 3), ("n", 1)])
    done = store.gc(150, set())
    assert stages(done) == [oldest, middle]
    assert (done.bytes_before, done.bytes_after, done.reached) == (300, 100, True)
    assert size_of_blobs(home) == 100
    assert content_of(store, "n") == of_size("n", 100)
    assert store.find(key_of("m")) is store.find(key_of("o")) is None
    assert store.verify().damaged == []
    assert store.gc(150, set()).freed == []
    assert newest not in stages(done)


def test_a_row_says_what_goes_and_what_it_cost(store):
    digest = add(store, "a", days=2)
    entry = store.find(key_of("a"))
    (row,) = store.gc(0, set()).freed
    assert row == {
        "kind": "artifact", "stage": "awq_model", "digest": digest, "keys": [key_of("a").id], "bytes": 100,
        "seconds": entry.seconds, "last_used": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW - 2 * DAY)),
    }  # fmt: skip


def test_opening_and_reusing_count_as_use(store):
    opened, reused, other = (add(store, name, days=days) for name, days in [("o", 9), ("r", 8), ("x", 1)])
    store.open(opened)
    store.build(key_of("r"), must_not_run)
    assert stages(store.gc(200, set())) == [other]
    assert store.find(key_of("r")).digest == reused


def test_use_counts_without_opening_and_says_when_there_is_nothing_left_to_use(home, store):
    older, newer = add(store, "older", days=9), add(store, "newer", days=1)
    store.use(older)
    assert stages(store.gc(100, set())) == [newer]
    assert not (home / "store" / "trees").exists()
    with pytest.raises(StageError, match="not in the store any more"):
        store.use(newer)


def test_committing_what_is_there_under_another_key_counts_as_use(store):
    digest, other = add(store, "a", days=9), add(store, "other", days=1)
    store.build(key_of("same as a"), produces(of_size("a", 100)))
    assert stages(store.gc(100, set())) == [other]
    assert {entry.digest for entry in store.entries()} == {digest}


def test_an_artifact_goes_with_all_of_its_keys(home, store):
    digest = add(store, "a", days=1)
    store.build(key_of("b"), produces(of_size("a", 100)))
    store.open(digest)
    seconds = sum(entry.seconds for entry in store.entries())
    done = store.gc(0, set())
    assert sorted(done.freed[0]["keys"]) == sorted([key_of("a").id, key_of("b").id])
    assert done.seconds_to_rebuild == seconds
    assert list(store.entries()) == []
    assert [path for path in (home / "store" / "trees").iterdir() if path.name != ".temporary"] == []


def test_what_is_needed_stays_and_the_report_says_that_it_is_too_much(store):
    needed, other = add(store, "needed", 200, days=9), add(store, "other", days=1)
    done = store.gc(150, {needed})
    assert stages(done) == [other]
    assert (done.bytes_after, done.bytes_needed, done.reached) == (200, 200, False)
    assert content_of(store, "needed") == of_size("needed", 200)


def test_what_was_used_since_a_run_began_stays(store):
    before, since = add(store, "before", days=2), add(store, "since", days=1)
    assert stages(store.gc(0, set(), used_since=NOW - 1.5 * DAY)) == [before]
    assert store.find(key_of("since")).digest == since


def test_an_artifact_whose_key_is_being_built_stays(home, store):
    digest = add(store, "a", days=9)
    with Leases(Layout(home / "store")).take(key_of("a").id):
        assert store.gc(0, set()).freed == []
        assert store.gc(0, set(), dry_run=True).freed == []
    assert stages(store.gc(0, set())) == [digest]


def test_what_a_build_in_progress_opened_stays(store):
    one, other = add(store, "one", days=9), add(store, "other", days=1)

    def produce(folder: Path, scratch: Path) -> None:
        tree = store.open(one)
        time.sleep(0.15)  # longer than what gc allows for clocks that tick
        (folder.parent / "inputs").mkdir()  # does not make the build look younger than its inputs
        assert stages(store.gc(0, set())) == [other]
        (folder / "copy").write_bytes((tree / "weights").read_bytes())

    store.build(key_of("whole"), produce)
    assert content_of(store, "whole") == {"copy": of_size("one", 100)["weights"]}


def test_what_is_used_while_gc_runs_stays(store):
    first, second = add(store, "first", days=9), add(store, "second", days=1)

    class OpensTheSecond:
        def log(self, message: str) -> None: ...

        def step(self, what: str, done: int, total: int, note: str = "") -> None:
            if done == 1:
                store.open(second)

    done = store.gc(0, set(), progress=OpensTheSecond())
    assert stages(done) == [first]
    assert (done.bytes_after, done.reached) == (100, False)
    assert content_of(store, "second") == of_size("second", 100)
    assert store.verify().damaged == []


@pytest.mark.parametrize("freed", [True, False])
def test_who_wants_an_artifact_waits_while_gc_decides(home, store, freed):
    manifest = home / "store" / "manifests" / f"{add(store, 'a', days=9)}.json"
    outcomes: list[str] = []

    def want() -> None:
        outcomes.append(store.build(key_of("a"), produces(of_size("a", 100))).outcome)

    wanting = threading.Thread(target=want)
    with hold_unused(manifest) as last_used_ns:
        wanting.start()
        wanting.join(0.2)
        assert manifest.stat().st_mtime_ns == last_used_ns
        assert outcomes == []
        if freed:
            manifest.unlink()
    wanting.join()
    assert outcomes == ["computed" if freed else "reused"]
    assert content_of(store, "a") == of_size("a", 100)


def test_shared_blobs_go_with_the_last_that_holds_them_and_count_once(home, store):
    shared = {"graph": b"g" * 1000}
    for days, name in enumerate(("three", "two", "one"), start=1):
        used(store, store.build(key_of(name), produces(shared | of_size(name, 10))).entry.digest, days)
    done = store.gc(1010, set())
    assert [row["bytes"] for row in done.freed] == [10, 10]
    assert (done.bytes_before, done.bytes_after) == (1030, 1010)
    assert size_of_blobs(home) == 1010
    assert content_of(store, "three") == shared | of_size("three", 10)
    assert [row["bytes"] for row in store.gc(0, set()).freed] == [1010]


def test_what_would_free_nothing_stays(store):
    part = used(store, store.build(key_of("part"), produces({"graph": b"g" * 1000})).entry.digest, 9)
    whole = store.build(key_of("whole"), produces({"graph": b"g" * 1000, "adapter": b"a"})).entry.digest
    add(store, "other", days=1)
    assert part not in stages(store.gc(1001, {whole}))
    assert content_of(store, "part") == {"graph": b"g" * 1000}


@pytest.fixture
def littered(home, store) -> Store:
    """Three artifacts, one open, and leftovers of every kind, 10 bytes each."""
    for name, days in (("one", 3), ("two", 2), ("three", 1)):
        add(store, name, days=days)
    store.open(used(store, store.find(key_of("one")).digest, 3))
    used(store, store.find(key_of("one")).digest, 3)
    digest = "0123456789abcdef" * 4
    for path in (
        home / "store" / "blobs" / digest[:2] / digest,
        home / "store" / "trees" / digest / "weights",
        home / "store" / "trees" / ".temporary" / f"tree-{digest}~x" / "tree" / "weights",
        home / "store" / "temporary" / f"{digest}~x" / "artifact" / "weights",
        home / "store" / "temporary" / f"commit~manifests-{digest}.json",
        home / "store" / "scratch" / key_of("one").id / "checkpoint",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"leftover..")
    return store


def test_leftovers_go_first_and_always(home, littered):
    done = littered.gc(300, set())
    assert (done.freed, done.bytes_before, done.bytes_after, done.bytes_leftover) == ([], 360, 300, 60)
    assert left_behind(home) == []
    assert size_of_blobs(home) == 300
    assert len(list((home / "store" / "trees").iterdir())) == 2  # the open one, and .temporary
    assert littered.verify().damaged == []
    assert content_of(littered, "one") == of_size("one", 100)


@pytest.mark.parametrize("max_bytes", [0, 150, 250, 1000])
def test_a_dry_run_says_the_same_and_touches_nothing(home, littered, max_bytes):
    needed = {littered.find(key_of("two")).digest}
    before = state(home)
    told = littered.gc(max_bytes, needed, dry_run=True)
    assert state(home) == before
    done = littered.gc(max_bytes, needed)
    assert told.dry_run
    assert not done.dry_run
    assert vars(told) | {"dry_run": False} == vars(done)
    assert done.bytes_after == size_of_blobs(home)


def test_the_scratch_of_an_interrupted_attempt_has_its_place_in_the_order(home, store):
    def interrupted(folder: Path, scratch: Path) -> None:
        (scratch / "checkpoint").write_bytes(b"step 20".ljust(100))
        raise KeyboardInterrupt

    older, newer = add(store, "older", days=3), add(store, "newer", days=1)
    with pytest.raises(KeyboardInterrupt):
        store.build(key_of("trained"), interrupted)
    scratch = home / "store" / "scratch" / key_of("trained").id
    for path in (scratch / "checkpoint", scratch):
        os.utime(path, (NOW - 2 * DAY, NOW - 2 * DAY))
    assert stages(store.gc(200, set())) == [older]
    assert (scratch / "checkpoint").exists()
    (row,) = store.gc(100, set()).freed
    assert (row["kind"], row["keys"], row["bytes"]) == ("scratch", [key_of("trained").id], 100)
    assert not scratch.exists()
    assert store.find(key_of("newer")).digest == newer


def test_the_scratch_of_a_build_in_progress_stays(store):
    def produce(folder: Path, scratch: Path) -> None:
        (scratch / "checkpoint").write_bytes(b"step 20")
        assert store.gc(0, set()).freed == []
        (folder / "adapter").write_bytes((scratch / "checkpoint").read_bytes())

    store.build(key_of("trained"), produce)
    assert content_of(store, "trained") == {"adapter": b"step 20"}


def test_copies_in_a_tree_count_and_go_with_the_artifact(home, store, mount):
    mount(home / "store" / "trees", "-t", "tmpfs", "tmpfs")
    digest = add(store, "a", days=1)
    tree = store.open(digest)
    done = store.gc(0, set())
    assert (done.bytes_before, done.bytes_after) == (200, 0)
    assert not tree.exists()


def test_gc_of_no_store_leaves_no_trace(home, store):
    assert store.gc(0, set()).reached
    assert not home.exists()


@pytest.mark.parametrize("folder", ["keys", "manifests"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_belongs_to_a_damaged_key_or_manifest_is_not_guessed(home, store, folder, dry_run):
    add(store, "a", days=1)
    flip_byte(next((home / "store" / folder).iterdir()))
    with pytest.raises(StageError, match=r"1 keys or manifests are damaged.*press store repair"):
        store.gc(0, set(), dry_run=dry_run)
    assert size_of_blobs(home) == 100
    store.repair()
    assert store.gc(0, set(), dry_run=dry_run).reached


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_full_disk_can_be_collected(tmp_path, mount, what):
    disk = mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m,nr_inodes=300", "tmpfs")
    store = Store(disk)
    for name in ("one", "two"):
        add(store, name, 100_000, days=1)
    if what == "bytes":
        fill(disk / "somebody else's")
    else:
        with pytest.raises(OSError, match="No space left"):
            for number in range(1000):
                (disk / str(number)).touch()
    done = store.gc(0, set())
    assert (len(done.freed), done.bytes_after) == (2, 0)
    assert store.verify().damaged == []


def test_gc_killed_anywhere_leaves_whole_artifacts_and_what_the_next_one_frees(home, store):
    shared = {"graph": b"g" * 1000}
    contents = {name: shared | of_size(name, 10) for name in ("needed", "open", "closed")}

    def fill_store() -> str:
        for name, files in contents.items():
            store.build(key_of(name), produces(files))
        (home / "store" / "scratch" / key_of("trained").id).mkdir(parents=True, exist_ok=True)
        (home / "store" / "scratch" / key_of("trained").id / "checkpoint").write_bytes(b"step 20")
        store.open(store.find(key_of("open")).digest)
        return store.find(key_of("needed")).digest

    def check(number: int) -> None:
        assert Store(home).verify().damaged == []
        assert content_of(Store(home), "needed") == contents["needed"]
        for name in ("open", "closed"):
            assert content_of(Store(home), name) in (None, contents[name])
        done = Store(home).gc(0, {needed})
        assert (done.bytes_after, size_of_blobs(home), left_behind(home)) == (1010, 1010, [])
        assert len(list((home / "store" / "keys").iterdir())) == 1
        fill_store()

    needed = fill_store()
    assert kill_everywhere(lambda number: Store(home).gc(0, {needed}), check) > 30


def collect_until(home: Path, end: Path) -> int:
    rounds = 0
    while not end.exists():
        Store(home).gc(0, set())
        rounds += 1
        time.sleep(0.02)  # locks are not fair: who never rests would keep the builders from committing
    return rounds


def verify_until(home: Path, end: Path) -> list[dict[str, object]]:
    damaged: list[dict[str, object]] = []
    while not end.exists():
        damaged += Store(home).verify().damaged
    return damaged


def build_over_and_over(home: Path, mine: str, rounds: int) -> list[str]:
    """Build something from an artifact that is collected all the time; how that came each time."""
    store, outcomes = Store(home), []

    def produce(folder: Path, scratch: Path) -> None:
        built = store.build(key_of("a"), produces(FILES))
        outcomes.append(built.outcome)
        for _ in range(3):  # what was opened inside a build stays until it ends
            assert files_in(store.open(built.entry.digest)) == FILES
            time.sleep(0.002)
        (folder / "copy").hardlink_to(store.open(built.entry.digest) / "weights" / "layer.bin")

    for number in range(rounds):
        time.sleep(0.02 * (number % 2))  # so that at times nobody builds
        entry = store.build(key_of(f"{mine} {number}"), produce).entry
        try:
            assert files_in(store.open(entry.digest)) == {"copy": FILES["weights/layer.bin"]}
        except (StageError, FileNotFoundError):  # outside of a build it may go at any time
            continue
    return outcomes


def test_builders_never_see_half_of_what_is_collected_under_them(home, store, tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        collecting = pool.apply_async(collect_until, (home, tmp_path / "end"))
        verifying = pool.apply_async(verify_until, (home, tmp_path / "end"))
        building = [pool.apply_async(build_over_and_over, (home, mine, 40)) for mine in ("one", "two")]
        outcomes = {outcome for result in building for outcome in result.get(120)}
        (tmp_path / "end").touch()
        assert collecting.get(60) > 10
        assert verifying.get(60) == []
    assert "computed" in outcomes
    assert store.verify().damaged == []
    assert store.gc(0, set()).bytes_after == 0
    assert left_behind(home) == []


def test_gc_waits_for_a_commit(home, store):
    add(store, "a", days=1)
    done: list[Collected] = []
    collecting = threading.Thread(target=lambda: done.append(store.gc(0, set())))
    with Leases(Layout(home / "store")).take("commit"):
        collecting.start()
        collecting.join(0.2)
        assert not done
        assert store.find(key_of("a")) is not None
    collecting.join()
    assert len(done[0].freed) == 1


def made_from(recipe: str, **inputs: str) -> Key:
    return Key({"recipe": recipe, "input.external": "e" * 64} | {f"input.{name}": of for name, of in inputs.items()})


def make(store: Store, key: Key, seen: dict[str, str] | None = None) -> str:
    provenance = {"inputs": seen} if seen else {}
    return store.build(key, produces({"name": repr(sorted(key.ingredients.items())).encode()}), provenance).entry.digest


def test_ancestors_are_everything_that_went_in_sources_included(store):
    source_key, other_source_key = made_from("source_data"), made_from("base_model")
    source, base = make(store, source_key), make(store, other_source_key)
    dataset = make(store, made_from("dataset", source_data=source_key.id))
    awq = make(store, made_from("awq_model", base_model=other_source_key.id))
    adapter = make(store, made_from("lora_adapter", awq_model=awq, dataset=dataset))
    unrelated = make(store, made_from("lora_adapter", awq_model=awq, dataset="0" * 64))
    assert store.ancestors([adapter]) == {adapter, awq, dataset, source, base}
    assert store.ancestors([dataset, unrelated]) == {dataset, source, unrelated, awq, base}
    assert store.ancestors([source_key.id]) == {source}
    assert store.ancestors([]) == set()


def test_ancestors_of_a_stage_that_sees_part_of_an_input_include_all_of_it(store):
    dataset = make(store, made_from("dataset"))
    adapter = make(store, made_from("lora_adapter", dataset="5" * 64), seen={"dataset": dataset})
    assert store.ancestors([adapter]) == {adapter, dataset}


def test_ancestors_include_an_artifact_that_no_key_names_any_more(store):
    old = store.build(made_from("awq_model"), produces({"weights": b"old"})).entry.digest
    adapter = make(store, made_from("lora_adapter", awq_model=old))
    store.build(made_from("awq_model"), produces({"weights": b"new"}), force=True)
    assert store.ancestors([adapter]) == {adapter, old}
    assert store.gc(0, store.ancestors([adapter])).bytes_needed > 0
    assert files_in(store.open(old)) == {"weights": b"old"}


def test_ancestors_of_what_several_keys_name_are_those_of_all(store):
    one, two = make(store, made_from("source_data")), make(store, made_from("calibration_text"))
    digests = {
        store.build(made_from("dataset", source_data=source), produces({"rows": b"equal"})).entry.digest
        for source in (one, two)
    }
    assert store.ancestors(digests) == {*digests, one, two}
