"""The grid of values that a group of weights is rounded to, as Olive's WeightQuantizer lays it, fast enough to search.

Weights come as groups, [rows, groups, group size]; bounds, scales and zero points as [rows, groups, 1]. Integer codes
run from 0 to 2^bits − 1 and stand for (code − zero point) · scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# Elements of a block: small enough for a core's cache, large enough to fill a GPU.
BLOCK_ELEMENTS = {"cpu": 1 << 16, "cuda": 1 << 24}


@dataclass(frozen=True)
class GridShape:
    """What does not depend on the weights."""

    bits: int
    group_size: int
    symmetric: bool

    @property
    def top(self) -> int:
        return 2**self.bits - 1

    def groups(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight`, [rows, columns], as groups."""
        return weight.reshape(weight.shape[0], -1, self.group_size)

    def outer(self, columns: torch.Tensor) -> torch.Tensor:
        """Products of the columns' values inside each group, [groups, group size, group size]."""
        grouped = columns.view(-1, self.group_size)
        return grouped[:, :, None] * grouped[:, None, :]


def bounds(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value of each group; zero always lies between."""
    return groups.amin(-1, keepdim=True).clamp_(max=0), groups.amax(-1, keepdim=True).clamp_(min=0)


def grid(low: torch.Tensor, high: torch.Tensor, shape: GridShape) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point (a whole number, as float) of the grid from `low` to `high`."""
    if shape.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    span = high - low
    scale = torch.where(span > 0, span, 2.0) / shape.top
    if shape.symmetric:
        return scale, torch.full_like(scale, (shape.top + 1) // 2)
    return scale, torch.round(-low / scale).clamp_(0, shape.top)


def rounded(groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, shape: GridShape) -> torch.Tensor:
    """`groups` rounded to the grid, as values of the grid; what lies outside is clipped."""
    codes = (groups / scale).add_(zero).round_().clamp_(0, shape.top)
    return codes.sub_(zero).mul_(scale)


def row_blocks(weight: torch.Tensor) -> Iterator[slice]:
    """Slices that cover the rows of `weight` in blocks that suit its device."""
    rows = max(1, BLOCK_ELEMENTS.get(weight.device.type, 1 << 20) // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        yield slice(start, start + rows)
