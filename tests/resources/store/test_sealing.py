"""Committing refuses what could still change, or what is no plain file."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from resources.errors import StageError
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


def test_a_file_that_goes_on_changing_never_becomes_a_wrong_artifact(home, store):
    stop = threading.Event()
    writers = []

    def keep_writing(path: Path) -> None:
        number = 0
        with suppress(OSError):  # it is moved away, or becomes read-only
            while not stop.is_set():
                number += 1
                with path.open("r+b") as file:
                    file.seek(number * 4096 % 8_000_000)
                    file.write(str(number).encode())

    def produce(folder: Path, scratch: Path) -> None:
        (folder / "weights").write_bytes(bytes(8_000_000))
        writers.append(threading.Thread(target=keep_writing, args=(folder / "weights",)))
        writers[0].start()

    with suppress(StageError):
        store.build(key_of("a"), produce)
    stop.set()
    writers[0].join()
    assert store.verify().damaged == []
    content_of(store, "a")
