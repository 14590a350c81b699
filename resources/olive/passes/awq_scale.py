"""AWQ's search for the scale of a fold's input columns (Lin et al., arXiv 2306.00978, section 3.2, equations 4 and 5).

    s* = argmin_s L(s),  L(s) = ‖ Q(W · diag(s)) · (diag(s)⁻¹ · X) − W · X ‖,  s = s_X^α,  α in [0, 1]

s_X is the mean |x| of a column. α = 0, no scale, is among the candidates, so that a scale never does worse than none.

L² is Σ d · Σ x·xᵀ · dᵀ over the rows and groups of d = Q(W · diag(s)) · diag(s)⁻¹ − W. Left out are the products of
one group's d with another's: what two groups lose by rounding has random signs, so that over thousands of rows they
cancel, and what is left of them says more about one rounding than about s.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from resources.olive.passes.awq_fold import Fold
from resources.olive.passes.input_statistics import InputStatistics
from resources.olive.passes.quantization_grid import (
    GridShape,
    bounds,
    grid,
    kernels_for,
    output_errors,
    rounded,
    row_blocks,
)


@dataclass(frozen=True)
class ChosenScale:
    """What the search found: α, and the error L² without scale and with it, relative to ‖W · X‖²."""

    fold: str
    ratio: float
    error_before: float
    error_after: float


@torch.no_grad()
def scale(fold: Fold, statistics: InputStatistics, shape: GridShape, ratios: int) -> ChosenScale:
    """Search α over `ratios` even steps, fold the best scale into the weights, and divide the statistics by it."""
    steps = [step / ratios for step in range(ratios + 1)]
    magnitude = fold.shared(statistics.magnitude).clamp(min=1e-6)
    candidates = torch.stack([_normalized(magnitude.pow(ratio)) for ratio in steps])
    errors = torch.zeros(len(steps), dtype=torch.float64, device=magnitude.device)
    for linear in fold.linears:
        errors += scale_errors(linear.weight, candidates, statistics.group_gram, shape)
    found = errors.tolist()
    best = found.index(min(found))
    size = statistics.output_size(fold.linears)
    if best > 0:
        fold.apply(candidates[best])
        statistics.divide(candidates[best])
    return ChosenScale(fold.name, steps[best], found[0] / size, found[best] / size)


def scale_errors(
    weight: torch.Tensor, candidates: torch.Tensor, group_gram: torch.Tensor, shape: GridShape
) -> torch.Tensor:
    """L², [candidates], in float64, of scales of the columns, [candidates, columns], for `weight`, [rows, columns]."""
    kernels = kernels_for(weight, shape)
    if kernels is not None:
        return kernels.scale_errors(weight, candidates, group_gram, shape)
    blocks = [shape.groups_first(weight[rows]) for rows in row_blocks(weight)]
    return torch.stack([_error(blocks, shape.groups_first(scale[None]), group_gram, shape) for scale in candidates])


def _error(blocks: list[torch.Tensor], scale: torch.Tensor, group_gram: torch.Tensor, shape: GridShape) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64, device=scale.device)
    for groups in blocks:
        scaled = groups * scale
        difference = rounded(scaled, *grid(*bounds(scaled), shape), shape).sub_(scaled).div_(scale)
        total += output_errors(difference, group_gram).sum(dtype=torch.float64)
    return total


def _normalized(scale: torch.Tensor) -> torch.Tensor:
    """`scale` with its largest and smallest value the same distance from 1, which changes no error."""
    return scale / (scale.max() * scale.min()).sqrt()
