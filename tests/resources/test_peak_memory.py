"""Peak memory keeps what was freed, and starts anew with each process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from resources.peak_memory import peak_memory_bytes
before = peak_memory_bytes()
block = b"x" * 200_000_000
del block
print(before, peak_memory_bytes())
"""


def test_memory_that_was_freed_counts():
    block = b"x" * 300_000_000  # of this process; the child must not count it
    out = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    assert len(block) == 300_000_000
    assert before < 100_000_000
    assert 190_000_000 < after - before < 260_000_000  # the kernel counts in batches
