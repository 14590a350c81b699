"""The project's definitions with sensors that look every second."""

from __future__ import annotations

from orchestration.definitions import load_definitions

quick_definitions = load_definitions(seconds_between_looks=1)
