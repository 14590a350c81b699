"""The environment of workers: threads that wait for each other sleep soon, and are no more than the cores."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from resources.preloaded import worker_environment


def test_pytorch_lets_waiting_threads_sleep_soon():
    """As its OpenMP itself tells it, which spins 300,000 times when it is told nothing."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = inherited | worker_environment(inherited) | {"OMP_DISPLAY_ENV": "verbose"}
    told = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
    assert re.search(r"GOMP_SPINCOUNT *= *'2000'", told.stderr), told.stderr


def test_threads_are_as_many_as_cores_that_a_container_may_use():
    assert worker_environment({}, usable=2, visible=64)["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in worker_environment({}, usable=64, visible=64)


def test_the_users_own_settings_stay():
    own = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}
    changed = worker_environment(own, usable=2, visible=64)
    assert (own | changed).items() >= own.items() and "GOMP_SPINCOUNT" not in changed
