"""AWQ's search for the scale of a fold's input columns (Lin et al., arXiv 2306.00978, section 3.2, equations 4 and 5).

    s* = argmin_s L(s),  L(s) = ‖ Q(W · diag(s)) · (diag(s)⁻¹ · X) − W · X ‖,  s = s_X^α / s_W^(1−α),  α in [0, 1]

s_X is the mean |x| of a column. s_W, the mean over rows of |w| relative to the largest |w| of its group, is the
refinement of the authors' implementation. s = 1 is among the candidates, so that a scale never does worse than none.
Q clips where clipping comes after the search: judging a scale by the rounding it will really get recovers more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from resources.olive.passes.awq_clip import best_grid
from resources.olive.passes.awq_fold import Fold
from resources.olive.passes.input_statistics import InputStatistics
from resources.olive.passes.quantization_grid import GridShape, rounded, row_blocks

COARSE_SHRINKS = (1.0, 0.9, 0.8, 0.7)


@dataclass(frozen=True)
class ChosenScale:
    """What the search found: α (none where s = 1 was best) and the error L² before and after, relative to ‖W · X‖²."""

    fold: str
    ratio: float | None
    error_before: float
    error_after: float


@torch.no_grad()
def scale(fold: Fold, statistics: InputStatistics, shape: GridShape, ratios: int, clip: bool) -> ChosenScale:
    """Search α over `ratios` even steps, fold the best scale into the weights, and divide the statistics by it."""
    weight = torch.cat([linear.weight for linear in fold.linears])
    shrinks = COARSE_SHRINKS if clip else COARSE_SHRINKS[:1]
    before = _squared_error(weight, torch.ones_like(weight[0]), statistics, shape, shrinks)
    best, best_ratio, best_scale = before, None, None
    for ratio, candidate in _candidates(fold, weight, statistics, shape, ratios):
        error = _squared_error(weight, candidate, statistics, shape, shrinks)
        if error < best:
            best, best_ratio, best_scale = error, ratio, candidate
    size = (statistics.tokens @ weight.T).square().sum()
    if best_scale is not None:
        fold.apply(best_scale)
        statistics.divide(best_scale)
    return ChosenScale(fold.name, best_ratio, float(before / size), float(best / size))


def _squared_error(
    weight: torch.Tensor,
    column_scale: torch.Tensor,
    statistics: InputStatistics,
    shape: GridShape,
    shrinks: tuple[float, ...],
) -> torch.Tensor:
    """L² of `column_scale`, [columns], for `weight`, [rows, columns], over the kept tokens."""
    gram = statistics.group_gram / shape.outer(column_scale)
    total = torch.zeros((), device=weight.device)
    for rows in row_blocks(weight):
        scaled = weight[rows] * column_scale
        scales, zeros = best_grid(scaled, gram, shape, shrinks)
        difference = rounded(shape.groups(scaled), scales, zeros, shape).view_as(scaled).sub_(scaled)
        total += (statistics.tokens @ difference.div_(column_scale).T).square_().sum()
    return total


def _candidates(
    fold: Fold, weight: torch.Tensor, statistics: InputStatistics, shape: GridShape, ratios: int
) -> Iterator[tuple[float, torch.Tensor]]:
    input_size = fold.shared(statistics.magnitude).clamp_(min=1e-6)
    relative = shape.groups(weight).abs()
    relative /= relative.amax(-1, keepdim=True) + 1e-6
    weight_size = fold.shared(relative.view_as(weight).mean(0)).clamp_(min=1e-4)
    for step in range(ratios + 1):
        ratio = step / ratios
        candidate = (input_size.pow(ratio) / weight_size.pow(1 - ratio)).clamp_(min=1e-4)
        yield ratio, candidate / (candidate.max() * candidate.min()).sqrt()
