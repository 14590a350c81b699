"""AWQ's search for the scale of a fold's input columns (Lin et al., arXiv 2306.00978, section 3.2, equations 4 and 5).

    s* = argmin_s L(s),  L(s) = ‖ Q(W · diag(s)) · (diag(s)⁻¹ · X) − W · X ‖,  s = s_X^α,  α in [0, 1]

s_X is the mean |x| of a column. α = 0, no scale, is among the candidates, so that a scale never does worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from resources.olive.passes.awq_fold import Fold
from resources.olive.passes.input_statistics import InputStatistics
from resources.olive.passes.quantization_grid import GridShape, bounds, grid, rounded, row_blocks


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
    weight = torch.cat([linear.weight for linear in fold.linears])
    steps = [step / ratios for step in range(ratios + 1)]
    candidates = [_normalized(fold.shared(statistics.magnitude).clamp(min=1e-6).pow(ratio)) for ratio in steps]
    errors = torch.stack([_squared_error(weight, candidate, statistics.tokens, shape) for candidate in candidates])
    best = int(errors.argmin())
    size = (statistics.tokens @ weight.T).square().sum()
    if best > 0:
        fold.apply(candidates[best])
        statistics.divide(candidates[best])
    return ChosenScale(fold.name, steps[best], float(errors[0] / size), float(errors[best] / size))


def _squared_error(weight: torch.Tensor, scale: torch.Tensor, tokens: torch.Tensor, shape: GridShape) -> torch.Tensor:
    """L² of `scale`, [columns], for `weight`, [rows, columns], over `tokens`, [tokens, columns]."""
    total = torch.zeros((), device=weight.device)
    for rows in row_blocks(weight):
        groups = shape.groups(weight[rows] * scale)
        difference = rounded(groups, *grid(*bounds(groups), shape), shape).sub_(groups)
        total += (tokens @ difference.view(-1, weight.shape[1]).div_(scale).T).square_().sum()
    return total


def _normalized(scale: torch.Tensor) -> torch.Tensor:
    """`scale` with its largest and smallest value the same distance from 1, which changes no error."""
    return scale / (scale.max() * scale.min()).sqrt()
