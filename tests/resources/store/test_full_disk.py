"""A full disk ends with one clear message, leaves nothing behind, and loses nothing that was complete."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.store.store import Store
from tests.resources.store.artifacts import FILES, content_of, key_of, left_behind, produces

MESSAGE = r"awq_model: the disk under .*/store is full: .* of .* are free.*had written .*PRESS_HOME"


@pytest.fixture
def disk(tmp_path, mount) -> Path:
    return mount(tmp_path / "disk", "-t", "tmpfs", "-o", "size=2m,nr_inodes=500", "tmpfs")


@pytest.fixture
def store(disk) -> Store:
    store = Store(disk)
    store.build(key_of("before"), produces(FILES))
    return store


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def produce_too_much(folder: Path, scratch: Path) -> None:
    (folder / "weights").write_bytes(b"x" * 4_000_000)


def produce_too_much_with_a_library(folder: Path, scratch: Path) -> None:
    import numpy
    from safetensors.numpy import save_file

    save_file({"weights": numpy.zeros(4_000_000, numpy.uint8)}, folder / "model.safetensors")


def produce_too_much_and_say_something_else(folder: Path, scratch: Path) -> None:
    try:
        produce_too_much(folder, scratch)
    except OSError as error:
        raise RuntimeError("training failed") from error


TOO_MUCH = [produce_too_much, produce_too_much_with_a_library, produce_too_much_and_say_something_else]


@pytest.mark.parametrize("produce", TOO_MUCH, ids=lambda produce: produce.__name__)
def test_while_producing(disk, store, produce):
    with pytest.raises(StageError, match=MESSAGE):
        store.build(key_of("a"), produce)
    assert left_behind(disk) == [key_of("a").id]  # the scratch, to go on from
    assert content_of(store, "before") == FILES
    assert store.verify().damaged == []


def test_while_committing(disk, store):
    def produce(folder: Path, scratch: Path) -> None:
        (folder / "weights").write_bytes(b"small")
        fill(disk / "somebody else's")

    with pytest.raises(StageError, match=MESSAGE):
        store.build(key_of("a"), produce)
    assert store.find(key_of("a")) is None
    (disk / "somebody else's").unlink()
    assert content_of(store, "before") == FILES
    assert store.verify().damaged == []
    store.build(key_of("a"), produces({"weights": b"small"}))
    assert content_of(store, "a") == {"weights": b"small"}
    assert left_behind(disk) == []


def test_before_anything_is_written(disk, store):
    fill(disk / "somebody else's")
    with pytest.raises(StageError, match=r"awq_model: the disk under .*/store is full: 0 B of"):
        store.build(key_of("a"), produces(FILES))
    assert content_of(store, "before") == FILES


def test_with_as_many_files_as_the_disk_can_hold(disk, store):
    with pytest.raises(OSError, match="No space left"):
        for number in itertools.count():
            (disk / str(number)).touch()
    with pytest.raises(StageError, match=r"awq_model: the disk under .*/store is full: no inodes"):
        store.build(key_of("a"), produces(FILES))
    with pytest.raises(StageError, match=r"artifact .*: the disk under .*/store is full: no inodes"):
        store.open(store.find(key_of("before")).digest)
    (disk / "0").unlink()
    (disk / "1").unlink()
    assert store.verify().damaged == []


def test_an_error_of_another_kind_stays_what_it_is(store):
    def produce(folder: Path, scratch: Path) -> None:
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        store.build(key_of("a"), produce)
