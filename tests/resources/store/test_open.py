"""Trees: what stages read costs no bytes, cannot change a blob, and is made anew when somebody altered it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.store.store import Store
from tests.resources.store.artifacts import FILES, blob_with, files_in, flip_byte, key_of, left_behind, produces

LAYER = FILES["weights/layer.bin"]


@pytest.fixture
def digest(store) -> str:
    return store.build(key_of("a"), produces(FILES)).entry.digest


def test_a_tree_is_hard_links(home, store, digest):
    tree = store.open(digest)
    assert (tree / "weights" / "layer.bin").samefile(blob_with(home, LAYER))


def blocks_of_files(home: Path) -> int:
    """What the files below `home` take on the disk, each inode once."""
    files = {path.stat().st_ino: path.stat() for path in home.rglob("*") if path.is_file()}
    return sum(status.st_blocks for status in files.values())


def test_opening_takes_no_room(home, store, digest):
    before = blocks_of_files(home)
    store.open(digest)
    assert blocks_of_files(home) == before > 0


def test_an_intact_tree_is_opened_as_it_is(store, digest):
    first = store.open(digest).stat()
    assert os.path.samestat(store.open(digest).stat(), first)


def test_files_are_read_only(store, digest):
    assert {path.stat().st_mode & 0o777 for path in store.open(digest).rglob("*") if path.is_file()} == {0o444}


def replace_file(tree: Path) -> None:
    (tree / "config.json").unlink()
    (tree / "config.json").write_bytes(FILES["config.json"][::-1])


def replace_file_with_the_times_of_the_old(tree: Path) -> None:
    times = (tree / "config.json").stat()
    replace_file(tree)
    os.utime(tree / "config.json", ns=(times.st_atime_ns, times.st_mtime_ns + 1))


def lose_file(tree: Path) -> None:
    (tree / "config.json").unlink()


def add_file(tree: Path) -> None:
    (tree / "weights" / "__pycache__").write_bytes(b"stray")


def link_file(tree: Path) -> None:
    (tree / "config.json").unlink()
    (tree / "config.json").symlink_to("/etc/hostname")


def link_folder(tree: Path) -> None:
    shutil.copytree(tree / "weights", tree.parent.parent / "elsewhere")
    shutil.rmtree(tree / "weights")
    (tree / "weights").symlink_to(tree.parent.parent / "elsewhere", target_is_directory=True)


def folder_for_file(tree: Path) -> None:
    (tree / "config.json").unlink()
    (tree / "config.json").mkdir()


def link_tree(tree: Path) -> None:
    tree.rename(tree.parent.parent / "moved")
    tree.symlink_to(tree.parent.parent / "moved", target_is_directory=True)


def file_for_tree(tree: Path) -> None:
    shutil.rmtree(tree)
    tree.write_bytes(b"no folder")


def lose_tree(tree: Path) -> None:
    shutil.rmtree(tree)


ALTERATIONS = [
    replace_file, replace_file_with_the_times_of_the_old, lose_file, add_file, link_file, link_folder, folder_for_file,
    link_tree, file_for_tree, lose_tree,
]  # fmt: skip


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda alter: alter.__name__)
def test_an_altered_tree_is_made_anew(home, store, digest, alter):
    alter(store.open(digest))
    tree = Store(home).open(digest)
    assert files_in(tree) == FILES
    assert not tree.is_symlink()
    assert (tree / "config.json").samefile(blob_with(home, FILES["config.json"]))
    assert store.verify().damaged == []
    assert left_behind(home) == []


def test_an_artifact_with_a_blob_written_to_is_not_opened(home, store, digest):
    flip_byte(store.open(digest) / "weights" / "layer.bin")
    with pytest.raises(StageError, match=r"2 of 3 files are lost or damaged.*press store repair"):
        store.open(digest)


@pytest.mark.parametrize("digest", ["0" * 64])
def test_an_unknown_artifact_is_named(store, digest):
    with pytest.raises(StageError, match="000000000000"):
        store.open(digest)


@pytest.mark.parametrize("digest", ["../../etc", "", "AB" * 32, "ab" * 31 + "/a"])
def test_what_is_no_digest_reaches_no_path(store, digest):
    with pytest.raises(Exception, match="64 hexadecimal digits"):
        store.open(digest)


def test_trees_on_another_file_system_are_copies(home, store, digest, mount):
    mount(home / "store" / "trees", "-t", "tmpfs", "tmpfs")
    tree = store.open(digest)
    assert files_in(tree) == FILES
    assert tree.stat().st_dev != blob_with(home, LAYER).stat().st_dev
    assert os.path.samestat(store.open(digest).stat(), tree.stat())
    flip_byte(tree / "weights" / "layer.bin")
    assert files_in(store.open(digest)) == FILES
    assert store.verify().damaged == []


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_trees_that_cannot_be_links_share_their_bytes_where_the_file_system_has_reflinks(tmp_path, mount, kind):
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 400_000_000)  # takes no room until it is written to
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    disk = mount(tmp_path / "disk", "-t", kind, "-o", "loop", str(image))
    weights = os.urandom(16_000_000)
    store = Store(disk)
    digest = store.build(key_of("a"), produces({"weights.bin": weights})).entry.digest
    (disk / "elsewhere").mkdir()
    mount(disk / "store" / "trees", "--bind", str(disk / "elsewhere"))  # no link leads from one mount to another
    os.sync()
    before = os.statvfs(disk)
    tree = store.open(digest)
    os.sync()
    after = os.statvfs(disk)
    assert (before.f_bfree - after.f_bfree) * before.f_frsize < len(weights) / 10
    blob = blob_with(disk, weights)
    assert not (tree / "weights.bin").samefile(blob)
    flip_byte(tree / "weights.bin")
    assert blob.read_bytes() == weights
    assert files_in(store.open(digest)) == {"weights.bin": weights}


def test_a_blob_with_all_the_links_its_file_system_allows_is_copied(home, store, digest, tmp_path):
    blob, names = blob_with(home, LAYER), tmp_path / "names"
    names.mkdir()
    try:
        for number in range(70_000):
            os.link(blob, names / str(number))
        pytest.skip("this file system allows more links than a test can make")
    except OSError as error:
        assert error.errno == errno.EMLINK
    tree = store.open(digest)
    assert files_in(tree) == FILES
    assert not (tree / "weights" / "layer.bin").samefile(blob)
    assert (tree / "weights" / "layer.bin").stat().st_mode & 0o777 == 0o444
    assert store.verify().damaged == []
