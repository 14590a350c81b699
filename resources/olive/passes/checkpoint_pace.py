"""How often a training saves a checkpoint: as asked, but no more than a tenth of its time goes into saving."""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.1
CHEAP_SECONDS = 1.0  # a save that takes less is not worth leaving out


@dataclass
class CheckpointPace:
    """Remembers when the last save ended and how long it took; times are seconds of one clock."""

    ended: float = 0.0
    took: float = 0.0

    def is_due(self, now: float) -> bool:
        """Whether a save at `now` leaves the share of time that saving takes at SHARE or less."""
        return self.took < CHEAP_SECONDS or now - self.ended >= self.took * (1 - SHARE) / SHARE

    def saved(self, began: float, ended: float) -> None:
        self.ended, self.took = ended, ended - began
