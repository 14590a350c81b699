"""kill -9 anywhere leaves the old state or the new one."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from resources.store.store import Store
from tests.resources.store.artifacts import FILES, content_of, files_in, key_of, left_behind, must_not_run, produces

OPERATIONS = {
    "open", "fcntl.flock", "os.chmod", "os.link", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.scandir", "os.truncate", "os.utime", "tempfile.mkdtemp",
}  # fmt: skip


def killed_before_operation(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that kills itself before its file operation of that number; False when it needs fewer."""
    child = os.fork()
    if child == 0:
        _die_before_operation(number)
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child failed before operation {number}"
    return status != 0


def _die_before_operation(number: int) -> None:
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def kill_everywhere(work: Callable[[int], object], check: Callable[[int], None]) -> int:
    """Kill `work(number)` before operation 1, 2, 3 … until it ends by itself, and check after each; the count."""
    number = 1
    while killed_before_operation(number, partial(work, number)):
        check(number)
        number += 1
    check(number)
    return number


def test_a_rebuild_killed_anywhere_leaves_the_old_artifact_or_the_new(home, store):
    def files(number: int) -> dict[str, bytes]:
        return {"config.json": b"{}", "deep/weights": f"weights of attempt {number}".encode() * 100}

    store.build(key_of("other"), produces(FILES))
    store.build(key_of("a"), produces(files(0)))
    there = 0

    def check(number: int) -> None:
        nonlocal there
        found = content_of(Store(home), "a")
        assert found in (files(there), files(number))
        there = number if found == files(number) else there
        assert content_of(store, "other") == FILES
        assert Store(home).verify().damaged == []

    killed = kill_everywhere(lambda number: Store(home).build(key_of("a"), produces(files(number)), force=True), check)
    assert killed > 30
    assert there == killed
    assert left_behind(home) == []


def test_a_first_build_killed_anywhere_is_there_or_is_not(tmp_path):
    files = {"one": b"1"}

    def check(number: int) -> None:
        store = Store(tmp_path / str(number))
        assert content_of(store, "a") in (None, files)
        assert store.verify().damaged == []
        store.build(key_of("a"), produces(files))
        assert content_of(store, "a") == files

    kill_everywhere(lambda number: Store(tmp_path / str(number)).build(key_of("a"), produces(files)), check)


def test_opening_killed_anywhere_leaves_no_half_tree(home, store):
    digest = store.build(key_of("a"), produces(FILES)).entry.digest

    def work(number: int) -> None:
        for path in (home / "store" / "trees").glob("[!.]*/config.json"):
            path.unlink()  # so that there is an altered tree to replace
        Store(home).open(digest)

    def check(number: int) -> None:
        assert files_in(Store(home).open(digest)) == FILES

    kill_everywhere(work, check)
    assert left_behind(home) == []


def test_repair_killed_anywhere_makes_nothing_worse(home, store):
    def damage() -> None:
        store.build(key_of("a"), produces(FILES))
        store.build(key_of("b"), produces({"one": b"1" * 100}))
        tree = store.open(store.find(key_of("a")).digest)
        for path in (home / "store" / "blobs").rglob("*"):
            if path.is_file() and (path.read_bytes() == FILES["config.json"] or path.stat().st_size == 100):
                path.unlink()  # a's blob can be taken back from its tree, b's cannot
        assert (tree / "config.json").exists()

    def check(number: int) -> None:
        Store(home).repair()
        assert Store(home).verify().damaged == []
        assert content_of(Store(home), "a") == FILES
        assert Store(home).find(key_of("b")) is None
        damage()

    damage()
    kill_everywhere(lambda number: Store(home).repair(), check)


def test_a_build_killed_while_producing_is_taken_up_from_its_scratch(home, store):
    def killed(folder: Path, scratch: Path) -> None:
        (folder / "half").write_bytes(b"half")
        (scratch / "checkpoint").write_bytes(b"step 20")
        os.kill(os.getpid(), signal.SIGKILL)

    def goes_on(folder: Path, scratch: Path) -> None:
        (folder / "adapter").write_bytes((scratch / "checkpoint").read_bytes())

    assert killed_before_operation(10**9, lambda: store.build(key_of("a"), killed))
    assert store.find(key_of("a")) is None
    store.build(key_of("a"), goes_on)
    assert content_of(store, "a") == {"adapter": b"step 20"}
    assert left_behind(home) == []
    store.build(key_of("a"), must_not_run)


def test_what_a_dead_process_left_is_swept_by_the_next_write_of_any_key(home, store):
    def killed(folder: Path, scratch: Path) -> None:
        (folder / "half").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    assert killed_before_operation(10**9, lambda: store.build(key_of("a"), killed))
    assert any(name.startswith(key_of("a").id + "~") for name in left_behind(home))
    store.build(key_of("b"), produces(FILES))
    assert left_behind(home) == [key_of("a").id]  # its scratch


if sys.platform == "win32":
    pytest.skip("no kill -9", allow_module_level=True)
