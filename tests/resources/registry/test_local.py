"""The local registry under many processes, a kill and a damaged file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.errors import StageError
from resources.registry.local import LocalRegistry

ROOT = Path(__file__).resolve().parents[3]
REGISTER = """
import sys
from pathlib import Path
from resources.registry.local import LocalRegistry
for digest in sys.argv[2:]:
    print(LocalRegistry(Path(sys.argv[1])).register("model", digest, {}, "card").version, flush=True)
"""


def start(home, digests):
    command = [sys.executable, "-c", REGISTER, str(home), *digests]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_that_register_at_once_agree(tmp_path):
    digests = [f"{number:064x}" for number in range(20)]
    processes = [start(tmp_path, order) for order in (digests, digests[::-1], digests[10:] + digests[:10])]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    versions = LocalRegistry(tmp_path).versions("model")
    assert [version.version for version in versions] == list(range(1, 21))
    assert {version.digest for version in versions} == set(digests)
    numbers = {version.digest: str(version.version) for version in versions}
    assert printed[0] == [numbers[digest] for digest in digests]
    assert printed[1] == [numbers[digest] for digest in digests[::-1]]


def test_a_killed_process_leaves_whole_versions_and_blocks_nobody(tmp_path):
    process = start(tmp_path, [f"{number:064x}" for number in range(5000)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "registry" / "model" / "5.json").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    registry = LocalRegistry(tmp_path)
    before = registry.versions("model")
    assert [version.version for version in before] == list(range(1, len(before) + 1))
    assert registry.register("model", "f" * 64, {}, "").version == len(before) + 1


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"name": "model"', b"[]"])
def test_a_damaged_version_is_told_and_not_passed_over(tmp_path, damage):
    registry = LocalRegistry(tmp_path)
    registry.register("model", "1" * 64, {}, "card")
    (tmp_path / "registry" / "model" / "1.json").write_bytes(damage)
    with pytest.raises(StageError, match=r"1\.json was damaged"):
        registry.find("model", "1" * 64)


def test_an_edited_version_is_told(tmp_path):
    registry = LocalRegistry(tmp_path)
    registry.register("model", "1" * 64, {"rows": "300"}, "card")
    file = tmp_path / "registry" / "model" / "1.json"
    file.write_text(file.read_text().replace("300", "999"))
    with pytest.raises(StageError, match="checksum"):
        registry.versions("model")


def test_looking_writes_nothing(tmp_path):
    LocalRegistry(tmp_path).versions("model")
    assert list(tmp_path.iterdir()) == []


def test_a_name_like_a_lock_file_is_a_name(tmp_path):
    registry = LocalRegistry(tmp_path)
    for name in ("model", "model.lock"):
        assert registry.register(name, "1" * 64, {}, "").version == 1


def test_what_another_process_registers_or_removes_is_found_at_once(tmp_path):
    """An instance that looked before, long after the files were written, so that it need not read them again."""
    mine, other = LocalRegistry(tmp_path), LocalRegistry(tmp_path)
    first = other.register("trip", "a" * 64, {}, "card")
    _set_back(tmp_path / "registry" / "trip", 2000)
    assert (mine.find("trip", "a" * 64), mine.find("trip", "b" * 64)) == (first, None)
    second = other.register("trip", "b" * 64, {}, "card")
    assert mine.find("trip", "b" * 64) == second
    _set_back(tmp_path / "registry" / "trip", 1000)
    assert mine.find("trip", "b" * 64) == second
    (tmp_path / "registry" / "trip" / "2.json").unlink()
    assert mine.find("trip", "b" * 64) is None
    assert mine.register("trip", "b" * 64, {}, "card").version == 2


def _set_back(folder: Path, seconds: int) -> None:
    """Let the folder look as if something came or went last so many seconds ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))
