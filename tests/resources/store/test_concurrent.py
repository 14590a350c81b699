"""Many processes at one store: one computes, the others wait and reuse; different keys do not disturb each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.store.store import Store
from tests.resources.store.artifacts import FILES, content_of, files_in, key_of, left_behind, must_not_run, produces

SPAWN = multiprocessing.get_context("spawn")
DEADLINE = 60  # seconds after which a test that hangs gives up


def mark(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)


def count(folder: Path) -> int:
    return len(list(folder.iterdir()))


def build_the_same(home: Path, waiting: Path, producing: Path, processes: int) -> tuple[str, str]:
    def produce(folder: Path, scratch: Path) -> None:
        mark(producing)
        wait_until(lambda: count(waiting) == processes - 1)
        produces(FILES)(folder, scratch)

    built = Store(home).build(key_of("a"), produce, on_wait=lambda line: mark(waiting))
    return built.outcome, built.entry.digest


def build_another(home: Path, producing: Path, processes: int) -> str:
    name = str(os.getpid())

    def produce(folder: Path, scratch: Path) -> None:
        mark(producing)
        wait_until(lambda: count(producing) == processes)  # all at the same time
        produces(FILES | {"own": name.encode()})(folder, scratch)

    Store(home).build(key_of(name), produce)
    return name


def build_until_killed(home: Path, producing: Path) -> None:
    def produce(folder: Path, scratch: Path) -> None:
        (folder / "half").write_bytes(b"half")
        mark(producing)
        time.sleep(DEADLINE)

    Store(home).build(key_of("a"), produce)


def rebuild_and_read(home: Path, rounds: int) -> list[bytes]:
    store, seen = Store(home), []
    for number in range(rounds):
        store.build(key_of("a"), produces({"weights": f"{os.getpid()} {number}".encode()}), force=True)
        seen.append((store.open(store.find(key_of("a")).digest) / "weights").read_bytes())
    return seen


@pytest.fixture
def marks(tmp_path):
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return folder


def test_of_processes_that_want_the_same_key_one_computes(home, marks):
    waiting, producing = marks("waiting"), marks("producing")
    with SPAWN.Pool(8) as pool:
        answers = pool.starmap(build_the_same, [(home, waiting, producing, 8)] * 8, chunksize=1)
    assert sorted(outcome for outcome, _ in answers) == ["computed"] + ["reused"] * 7
    assert len({digest for _, digest in answers}) == 1
    assert count(producing) == 1
    assert left_behind(home) == []


def test_different_keys_are_computed_at_the_same_time(home, store, marks):
    with SPAWN.Pool(8) as pool:
        names = pool.starmap(build_another, [(home, marks("producing"), 8)] * 8, chunksize=1)
    for name in names:
        assert content_of(store, name) == FILES | {"own": name.encode()}
    assert store.verify().damaged == []
    assert left_behind(home) == []


def test_when_the_one_that_computes_is_killed_a_waiting_one_takes_over(home, store, marks):
    producing = marks("producing")
    first = SPAWN.Process(target=build_until_killed, args=(home, producing))
    first.start()
    wait_until(lambda: count(producing) == 1)
    built = store.build(key_of("a"), produces(FILES), on_wait=lambda line: os.kill(first.pid, signal.SIGKILL))
    first.join()
    assert built.outcome == "computed"
    assert content_of(store, "a") == FILES
    assert left_behind(home) == []


def test_a_reader_never_sees_a_mixture_while_a_key_is_rebuilt(home, store):
    with SPAWN.Pool(3) as pool:
        seen = pool.starmap(rebuild_and_read, [(home, 15)] * 3, chunksize=1)
    assert all(len(content.split()) == 2 for contents in seen for content in contents)
    assert store.verify().damaged == []
    assert store.verify().artifacts == 45


def test_threads_of_one_process_share_as_processes_do(store):
    from concurrent.futures import ThreadPoolExecutor

    produced = []

    def produce(folder: Path, scratch: Path) -> None:
        produced.append(folder)
        produces(FILES)(folder, scratch)

    with ThreadPoolExecutor(8) as threads:
        built = list(threads.map(lambda number: store.build(key_of("a"), produce), range(8)))
    assert len(produced) == 1
    assert sorted(item.outcome for item in built) == ["computed"] + ["reused"] * 7


def test_many_open_the_same_tree(store):
    from concurrent.futures import ThreadPoolExecutor

    digest = store.build(key_of("a"), produces(FILES)).entry.digest
    with ThreadPoolExecutor(8) as threads:
        trees = list(threads.map(lambda number: files_in(store.open(digest)), range(16)))
    assert trees == [FILES] * 16
    store.build(key_of("a"), must_not_run)
