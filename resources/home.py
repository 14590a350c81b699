"""PRESS_HOME: the one folder that Olive Press writes to."""

from __future__ import annotations

import os
from pathlib import Path


def press_home() -> Path:
    """The absolute folder named by PRESS_HOME, or .press in this project; not created here."""
    named = os.environ.get("PRESS_HOME")
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parent.parent / ".press"
