"""The grid of values that a group of weights is rounded to, as Olive's WeightQuantizer lays it, fast enough to search.

Weights come in groups along their last dimension, bounds, scales and zero points with a last dimension of 1. Integer
codes run from 0 to 2^bits − 1 and stand for (code − zero point) · scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

# Elements of a block: small enough for a core's cache, large enough to fill a GPU.
BLOCK_ELEMENTS = {"cpu": 1 << 16, "cuda": 1 << 24}
KERNELS = "resources.olive.passes.awq_kernels"
KERNEL_GROUP_SIZES = (16, 32, 64, 128)  # a larger group's Gram matrix is too large for a multiprocessor's memory


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
        """`weight`, [rows, columns], as [rows, groups, group size]."""
        return weight.reshape(weight.shape[0], -1, self.group_size)

    def groups_first(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight`, [rows, columns], as [groups, rows, group size], the layout of products with Gram matrices."""
        return self.groups(weight).transpose(0, 1).contiguous()

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


def output_errors(difference: torch.Tensor, group_gram: torch.Tensor) -> torch.Tensor:
    """‖difference · x‖² over all tokens x, [groups, rows, 1].

    difference: of weights, [groups, rows, group size]; group_gram: [groups, group size, group size].
    """
    return torch.bmm(difference, group_gram).mul_(difference).sum(-1, keepdim=True)


def row_blocks(weight: torch.Tensor) -> Iterator[slice]:
    """Slices that cover the rows of `weight` in blocks that suit its device."""
    rows = max(1, BLOCK_ELEMENTS.get(weight.device.type, 1 << 20) // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        yield slice(start, start + rows)


def kernels_for(weight: torch.Tensor, shape: GridShape) -> Any:
    """The module of Triton kernels where it serves `weight`; None where the searches must do with PyTorch."""
    usable = weight.is_cuda and shape.group_size in KERNEL_GROUP_SIZES and find_spec("triton") is not None
    return import_module(KERNELS) if usable else None
