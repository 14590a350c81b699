"""AWQ's clipping: for each group of weights the bounds under which rounding hurts the layer's output least.

Of the bounds r · [min, max], r in [1 / 2, 1], the one with the least ‖(Q(w) − w) · x‖² over all calibration tokens x:
(Q(w) − w) · Σ x·xᵀ · (Q(w) − w)ᵀ, with the Gram matrix Σ x·xᵀ of the group's columns. So no tokens are kept, and unlike
Olive's AutoClip pass the search may clip queries and keys too: it sees what they read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from resources.olive.passes.quantization_grid import GridShape, bounds, grid, rounded

FINE_SHRINKS = tuple(1 - 0.05 * step for step in range(10))


@torch.no_grad()
def best_grid(
    weight: torch.Tensor, group_gram: torch.Tensor, shape: GridShape, shrinks: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points, [rows, groups, 1], of the best grid among the bounds of each group times `shrinks`.

    weight: [rows, columns]; group_gram: [groups, group size, group size]. With one shrink nothing is compared.
    """
    groups = shape.groups(weight)
    low, high = bounds(groups)
    best_scale, best_zero = grid(low * shrinks[0], high * shrinks[0], shape)
    if len(shrinks) == 1:
        return best_scale, best_zero
    least = _error(groups, best_scale, best_zero, group_gram, shape)
    for shrink in shrinks[1:]:
        scale, zero = grid(low * shrink, high * shrink, shape)
        error = _error(groups, scale, zero, group_gram, shape)
        better = error < least
        least = torch.where(better, error, least)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero


def _error(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, group_gram: torch.Tensor, shape: GridShape
) -> torch.Tensor:
    """[rows, groups, 1]."""
    difference = rounded(groups, scale, zero, shape).sub_(groups).transpose(0, 1).contiguous()
    return torch.bmm(difference, group_gram).mul_(difference).sum(-1).T.unsqueeze(-1)
