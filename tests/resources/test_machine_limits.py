"""Cores and memory, of the machine or of the container, as the kernel's files tell them."""

from __future__ import annotations

import os

import psutil
import pytest

from resources.machine_limits import cores, memory

GB = 1_000_000_000


@pytest.fixture
def kernel(tmp_path):
    """Writes files of control groups, by name; gives what to ask with."""

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "groups" / name.replace("__", "/").replace("--", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / "groups", tmp_path / "own"

    return write


def test_without_limits_they_are_those_of_the_machine(kernel, tmp_path):
    asked = kernel("0::/\n")
    assert cores(*asked) == len(os.sched_getaffinity(0))
    assert memory(*asked).whole == psutil.virtual_memory().total + psutil.swap_memory().total
    assert 0 < memory(tmp_path / "none", tmp_path / "nowhere").free <= memory(*asked).whole


def test_this_machine_has_some():
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
    assert 0 < memory().free <= memory().whole


@pytest.mark.parametrize(("told", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None)])
def test_a_container_limits_cores(kernel, told, expected):
    found = cores(*kernel("0::/box\n", **{"box__cpu--max": told}))
    here = len(os.sched_getaffinity(0))
    assert found == min(here, expected or here)


def test_limits_of_the_groups_around_count(kernel):
    files = {"outer__memory--max": str(2 * GB), "outer__memory--current": str(GB), "outer__inner__memory--max": "max"}
    files["outer__memory--stat"] = f"anon 5\ninactive_file {GB // 4}\n"
    assert memory(*kernel("0::/outer/inner\n", **files)) == (GB + GB // 4, 2 * GB)


def test_the_older_kind_of_control_groups(kernel):
    own = "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/\n"
    files = {"memory__box__memory--limit_in_bytes": str(GB), "memory__box__memory--usage_in_bytes": str(GB // 2)}
    files |= {"cpu__box__cpu--cfs_quota_us": "100000", "cpu__box__cpu--cfs_period_us": "100000"}
    asked = kernel(own, **files)
    assert memory(*asked) == (GB // 2, GB)
    assert cores(*asked) == 1


def test_what_is_not_limited_is_told_by_a_number_that_no_machine_has(kernel):
    files = {"memory__memory--limit_in_bytes": str(2**63 - 4096), "memory__memory--usage_in_bytes": "0"}
    files |= {"cpu__cpu--cfs_quota_us": "-1", "cpu__cpu--cfs_period_us": "100000"}
    asked = kernel("4:memory:/\n3:cpu:/\n", **files)
    assert memory(*asked).whole == psutil.virtual_memory().total + psutil.swap_memory().total
    assert cores(*asked) == len(os.sched_getaffinity(0))
