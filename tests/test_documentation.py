"""Commands in README and docs: make targets exist; press commands are run by test_end_to_end."""

from __future__ import annotations

import subprocess

import pytest

from tests.documentation import ROOT, shown_commands


@pytest.mark.parametrize("arguments", shown_commands("make"), ids=" ".join)
def test_shown_make_target_exists(arguments):
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_shows_the_three_ways_in():
    assert shown_commands("make")[:3] == [["run"], ["test"], ["dev"]]
