"""AWQ's clipping: for each group of weights the bounds under which rounding hurts the layer's output least.

Each bound of a group may shrink to half of what the group reaches. The best pair has the least ‖(Q(w) − w) · x‖² over
all calibration tokens x: (Q(w) − w) · Σ x·xᵀ · (Q(w) − w)ᵀ, with the Gram matrix Σ x·xᵀ of the group's columns. So no
tokens are kept, and unlike Olive's AutoClip pass, which leaves queries and keys alone, every layer is clipped. Both
bounds are searched together first, then each by itself.
"""

from __future__ import annotations

import torch

from resources.olive.passes.quantization_grid import (
    GridShape,
    bounds,
    grid,
    kernels_for,
    output_errors,
    rounded,
    row_blocks,
)

SHRINKS = tuple(1 - step / 20 for step in range(11))


@torch.no_grad()
def best_grid(
    weight: torch.Tensor, group_gram: torch.Tensor | None, shape: GridShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points, [rows, groups], of the best grid; without `group_gram` the bounds are not searched.

    weight: [rows, columns]; group_gram: [groups, group size, group size].
    """
    kernels = kernels_for(weight, shape)
    if kernels is not None and group_gram is not None:
        low, high = kernels.best_bounds(weight, group_gram, SHRINKS, shape)
        return grid(low, high, shape)
    found = [_best_grid(shape.groups_first(weight[rows]), group_gram, shape) for rows in row_blocks(weight)]
    scales, zeros = (torch.cat(part, dim=1).squeeze(-1).T.contiguous() for part in zip(*found, strict=True))
    return scales, zeros


def _best_grid(
    groups: torch.Tensor, group_gram: torch.Tensor | None, shape: GridShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points, [groups, rows, 1], for weights [groups, rows, group size]."""
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
            difference = rounded(groups, *grid(tried_low, tried_high, shape), shape).sub_(groups)
            error = output_errors(difference, group_gram)
            better = error < least
            least = torch.where(better, error, least)
            best_low = torch.where(better, tried_low, best_low)
            best_high = torch.where(better, tried_high, best_high)
        if shape.symmetric:  # one scale: there is nothing to search apart
            break
    return grid(best_low, best_high, shape)
