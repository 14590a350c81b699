"""Sizes as people write them: 20GB, 1.5 TiB, 500000."""

from __future__ import annotations

import re
from decimal import Decimal

from resources.errors import ConfigurationError

UNITS = {"": 1, "B": 1, **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGTP", start=1)}}
UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTP", start=1)}
SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_size(text: str, place: str = "size") -> int:
    """The bytes that `text` says; a ConfigurationError naming `place` for anything that is no size."""
    found = SIZE.fullmatch(text)
    units = {unit.casefold(): factor for unit, factor in UNITS.items()}
    if found is None or found[2].casefold() not in units:
        accepted = f"a number and one of {', '.join(unit for unit in UNITS if unit)}"
        raise ConfigurationError(place, repr(text), accepted)
    return int(Decimal(found[1]) * units[found[2].casefold()])


def format_size(count: float) -> str:
    """`count` bytes in three digits and the unit that leaves at least one before the point."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
