"""AWQ's clipping: for each group of weights the bounds under which rounding hurts the layer's output least.

Each bound of a group may shrink to half of what the group reaches. The best pair has the least ‖(Q(w) − w) · x‖² over
all calibration tokens x: (Q(w) − w) · Σ x·xᵀ · (Q(w) − w)ᵀ, with the Gram matrix Σ x·xᵀ of the group's columns. So no
tokens are kept, and unlike Olive's AutoClip pass, which leaves queries and keys alone, every layer is clipped. Both
bounds are searched together first, then each by itself.
"""

from __future__ import annotations

import torch

from resources.olive.passes.quantization_grid import GridShape, bounds, grid, rounded

SHRINKS = tuple(1 - step / 20 for step in range(11))


@torch.no_grad()
def best_grid(
    weight: torch.Tensor, group_gram: torch.Tensor | None, shape: GridShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points, [rows, groups, 1], of the best grid; without `group_gram` the bounds are not searched.

    weight: [rows, columns]; group_gram: [groups, group size, group size].
    """
    groups = shape.groups(weight)
    low, high = bounds(groups)
    if group_gram is None:
        return grid(low, high, shape)
    best_low, best_high = low, high
    least = torch.full_like(low, torch.inf)
    for moves_low, moves_high in ((True, True), (True, False), (False, True)):
        start_low, start_high = best_low, best_high
        for shrink in SHRINKS:
            tried_low = low * shrink if moves_low else start_low
            tried_high = high * shrink if moves_high else start_high
            error = _error(groups, tried_low, tried_high, group_gram, shape)
            better = error < least
            least = torch.where(better, error, least)
            best_low = torch.where(better, tried_low, best_low)
            best_high = torch.where(better, tried_high, best_high)
        if shape.symmetric:  # one scale: there is nothing to search apart
            break
    return grid(best_low, best_high, shape)


def _error(
    groups: torch.Tensor, low: torch.Tensor, high: torch.Tensor, group_gram: torch.Tensor, shape: GridShape
) -> torch.Tensor:
    """[rows, groups, 1]."""
    difference = rounded(groups, *grid(low, high, shape), shape).sub_(groups).transpose(0, 1).contiguous()
    return torch.bmm(difference, group_gram).mul_(difference).sum(-1).T.unsqueeze(-1)
