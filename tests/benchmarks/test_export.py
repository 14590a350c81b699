"""The export benchmark on one layer: its tables, and a peak under the bound."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.documentation import ROOT


def test_one_layer_is_built_under_the_bound():
    command = [sys.executable, "-m", "benchmarks.export", "--layers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^\| (\S+) \| (\S*) \| (\S+) \| (\S+) \|$", done.stdout, re.MULTILINE)
    assert found is not None
    assert 0.4 < float(found[1]) < float(found[3])
    for phase in ("cut fused projections", "model builder", "compare every code", "graft"):
        assert f"| {phase} | " in done.stdout
