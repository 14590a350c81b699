"""Committing refuses what could still change, or what is no plain file."""

from __future__ import annotations

import mmap
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.store.blobs import Blobs
from resources.store.digests import FileDigests
from resources.store.layout import Layout
from resources.store.sealing import SEALED_NS, seal_folder
from tests.resources.store.artifacts import FILES, content_of, key_of, left_behind, produces


def leaves_nothing(folder: Path) -> None:
    (folder / "empty folder").mkdir()


def leaves_no_folder(folder: Path) -> None:
    folder.rmdir()


def leaves_link(folder: Path) -> None:
    (folder / "weights").write_bytes(b"w")
    (folder / "link").symlink_to("weights")


def leaves_link_to_folder(folder: Path) -> None:
    (folder / "weights").write_bytes(b"w")
    (folder / "link").symlink_to("/etc", target_is_directory=True)


def leaves_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def leaves_socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)


def leaves_backslash(folder: Path) -> None:
    (folder / "..\\outside").write_bytes(b"w")


REFUSED = {
    leaves_nothing: "no file",
    leaves_no_folder: "no file",
    leaves_link: "symbolic link, link",
    leaves_link_to_folder: "symbolic link, link",
    leaves_pipe: "special file, pipe",
    leaves_socket: "special file, socket",
    leaves_backslash: "outside",
}


@pytest.mark.parametrize("leaves", REFUSED, ids=lambda leaves: leaves.__name__)
def test_only_plain_files_make_an_artifact(home, store, leaves):
    store.build(key_of("before"), produces(FILES))
    with pytest.raises(StageError, match=f"awq_model: .*{REFUSED[leaves]}"):
        store.build(key_of("a"), lambda folder, scratch: leaves(folder))
    assert store.find(key_of("a")) is None
    assert content_of(store, "before") == FILES
    assert store.verify().damaged == []


linux_only = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux tells who writes to a file")


@linux_only
def test_a_file_still_open_for_writing_is_refused(home, store):
    open_files = []

    def produce(folder: Path, scratch: Path) -> None:
        open_files.append((folder / "weights").open("wb"))

    with pytest.raises(StageError, match="weights is still open for writing"):
        store.build(key_of("a"), produce)
    open_files[0].close()
    assert store.find(key_of("a")) is None


@linux_only
def test_a_file_still_mapped_for_writing_is_refused(home, store):
    maps = []

    def produce(folder: Path, scratch: Path) -> None:
        (folder / "weights").write_bytes(bytes(4096))
        with (folder / "weights").open("r+b") as file:
            maps.append(mmap.mmap(file.fileno(), 4096))

    with pytest.raises(StageError, match="weights is still open for writing"):
        store.build(key_of("a"), produce)
    maps[0].close()


def test_a_file_with_another_name_outside_is_copied_so_that_its_owner_may_go_on_writing(home, store, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"first")

    def produce(folder: Path, scratch: Path) -> None:
        (folder / "weights").hardlink_to(mine)
        (folder / "weights~").write_bytes(b"another")

    store.build(key_of("a"), produce)
    assert mine.stat().st_mode & 0o200
    mine.write_bytes(b"later")
    assert content_of(store, "a") == {"weights": b"first", "weights~": b"another"}
    assert store.verify().damaged == []
    assert left_behind(home) == []


def write_over(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"changed")


@pytest.fixture
def placing(home, tmp_path):
    """The steps of committing one file, one by one."""
    layout = Layout(home / "store")
    folder = tmp_path / "produced"
    folder.mkdir()
    (folder / "weights").write_bytes(b"weights" * 1000)
    return folder / "weights", Blobs(layout, FileDigests(layout.digests)), seal_folder(folder, "awq_model", layout)


def test_a_file_written_to_after_it_was_hashed_is_not_placed(home, placing):
    path, blobs, sealed = placing
    write_over(path)
    with pytest.raises(StageError, match="awq_model: weights changed while it was committed"):
        blobs.place("awq_model", sealed)
    assert not (home / "store" / "blobs").exists()


def test_a_file_written_to_after_it_was_placed_is_dropped_before_a_key_names_it(home, placing):
    _, blobs, sealed = placing
    blobs.place("awq_model", sealed)
    blobs.confirm("awq_model", [file.record for file in sealed])
    (blob,) = (home / "store" / "blobs").glob("*/*")
    write_over(blob)
    with pytest.raises(StageError, match="awq_model: weights changed while it was committed"):
        blobs.confirm("awq_model", [file.record for file in sealed])
    assert not blob.exists()


def test_a_file_written_to_while_it_is_hashed_is_refused(home, store):
    writers = []

    def write_when_sealed(path: Path) -> None:
        while path.stat().st_mtime_ns != SEALED_NS:
            time.sleep(0.001)
        write_over(path)

    def produce(folder: Path, scratch: Path) -> None:
        with (folder / "weights").open("wb") as file:
            file.truncate(400_000_000)  # takes no room and long enough to hash
        writers.append(threading.Thread(target=write_when_sealed, args=(folder / "weights",)))
        writers[0].start()

    with pytest.raises(StageError, match="weights changed while it was committed"):
        store.build(key_of("a"), produce)
    writers[0].join()
    assert store.find(key_of("a")) is None
    assert store.verify().blobs == 0


def test_a_file_written_to_while_others_are_placed_is_refused(home, store):
    blobs = home / "store" / "blobs"
    writers = []

    def write_when_placed() -> None:
        while not (placed := list(blobs.glob("*/*"))):
            time.sleep(0.0005)
        write_over(placed[0])

    def produce(folder: Path, scratch: Path) -> None:
        for number in range(200):  # in as many folders, each of which is synced
            (folder / str(number)).write_bytes(b"weights %d" % number)
        writers.append(threading.Thread(target=write_when_placed))
        writers[0].start()

    with pytest.raises(StageError, match="changed while it was committed"):
        store.build(key_of("a"), produce)
    writers[0].join()
    assert store.find(key_of("a")) is None
    assert store.verify().damaged == []
