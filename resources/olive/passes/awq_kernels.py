"""The searches of awq_scale.py and awq_clip.py as Triton kernels: each weight is read once for all that is tried.

One program holds the weights of some rows in one group and the Gram matrix of the group's columns on the
multiprocessor, and tries every scale, or every pair of bounds, there. Every error is summed in one order, so that the
results are the same each time.
"""

# ruff: noqa: ANN001, ANN202  # Triton gives the parameters of kernels their types

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]  # comes with PyTorch for CUDA
import triton.language as tl  # pyright: ignore[reportMissingImports]

from resources.olive.passes.quantization_grid import GridShape

ROWS = 64  # of weights in one program
PRECISION = "tf32x3"  # of products with Gram matrices: nearly float32


def scale_errors(
    weight: torch.Tensor, candidates: torch.Tensor, group_gram: torch.Tensor, shape: GridShape
) -> torch.Tensor:
    """What awq_scale.scale_errors returns."""
    rows, columns = weight.shape
    blocks, groups = triton.cdiv(rows, ROWS), columns // shape.group_size
    errors = torch.empty(len(candidates), blocks, groups, device=weight.device)
    kernel: Any = _scale_errors
    kernel[(blocks, groups)](
        weight.contiguous(),
        candidates.contiguous(),
        group_gram.contiguous(),
        errors,
        rows,
        columns,
        len(candidates),
        **_constants(shape),
    )
    return errors.sum((1, 2), dtype=torch.float64)


def best_bounds(
    weight: torch.Tensor, group_gram: torch.Tensor, shrinks: Sequence[float], shape: GridShape
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value, [rows, groups], between which each group of `weight` is best rounded."""
    rows, columns = weight.shape
    blocks, groups = triton.cdiv(rows, ROWS), columns // shape.group_size
    low, high = torch.empty(2, rows, groups, device=weight.device)
    kernel: Any = _best_bounds
    kernel[(blocks, groups)](
        weight.contiguous(),
        group_gram.contiguous(),
        torch.tensor(shrinks, device=weight.device),
        low,
        high,
        rows,
        columns,
        len(shrinks),
        **_constants(shape),
    )
    return low, high


def _constants(shape: GridShape) -> dict[str, Any]:
    return {
        "TOP": shape.top,
        "SYMMETRIC": shape.symmetric,
        "ROWS": ROWS,
        "GROUP": shape.group_size,
        "PRECISION": PRECISION,
        "num_warps": 8 if shape.group_size > 64 else 4,
    }


@triton.jit
def _scale_errors(
    weight,
    candidates,
    gram,
    errors,
    rows,
    columns,
    tried,
    TOP: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, group = tl.program_id(0), tl.program_id(1)
    values = _weights(weight, block, group, rows, columns, ROWS, GROUP)
    products = _gram(gram, group, GROUP)
    column = group * GROUP + tl.arange(0, GROUP)
    for candidate in range(tried):
        scale = tl.load(candidates + candidate * columns + column)
        scaled = values * scale[None, :]
        low, high = tl.minimum(tl.min(scaled, 1), 0.0), tl.maximum(tl.max(scaled, 1), 0.0)
        difference = _rounding(scaled, low, high, TOP, SYMMETRIC) / scale[None, :]
        error = _output_errors(difference, products, PRECISION)
        place = (candidate * tl.num_programs(0) + block) * tl.num_programs(1) + group
        tl.store(errors + place, tl.sum(error, 0))


@triton.jit
def _best_bounds(
    weight,
    gram,
    shrinks,
    lows,
    highs,
    rows,
    columns,
    tried,
    TOP: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    block, group = tl.program_id(0), tl.program_id(1)
    values = _weights(weight, block, group, rows, columns, ROWS, GROUP)
    products = _gram(gram, group, GROUP)
    low, high = tl.minimum(tl.min(values, 1), 0.0), tl.maximum(tl.max(values, 1), 0.0)
    best_low, best_high = low, high
    least = tl.full((ROWS,), float("inf"), tl.float32)
    for moved in tl.static_range(1 if SYMMETRIC else 3):  # both bounds, the lower one, the higher one
        start_low, start_high = best_low, best_high
        for step in range(tried):
            shrink = tl.load(shrinks + step)
            tried_low = start_low if moved == 2 else low * shrink
            tried_high = start_high if moved == 1 else high * shrink
            error = _output_errors(_rounding(values, tried_low, tried_high, TOP, SYMMETRIC), products, PRECISION)
            better = error < least
            least = tl.where(better, error, least)
            best_low = tl.where(better, tried_low, best_low)
            best_high = tl.where(better, tried_high, best_high)
    row = block * ROWS + tl.arange(0, ROWS)
    place = row * tl.num_programs(1) + group
    tl.store(lows + place, best_low, mask=row < rows)
    tl.store(highs + place, best_high, mask=row < rows)


@triton.jit
def _weights(weight, block, group, rows, columns, ROWS: tl.constexpr, GROUP: tl.constexpr):
    """[ROWS, GROUP]; zeros past the last row, which rounding leaves as they are."""
    row = (block * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = group * GROUP + tl.arange(0, GROUP)
    return tl.load(weight + row[:, None] * columns + column[None, :], mask=(row < rows)[:, None], other=0.0)


@triton.jit
def _gram(gram, group, GROUP: tl.constexpr):
    inside = tl.arange(0, GROUP)
    return tl.load(gram + group * GROUP * GROUP + inside[:, None] * GROUP + inside[None, :])


@triton.jit
def _rounding(values, low, high, TOP: tl.constexpr, SYMMETRIC: tl.constexpr):
    """What rounding to the grid from `low` to `high`, [rows], adds to `values`, [rows, columns]."""
    if SYMMETRIC:
        high = tl.maximum(high, -low)
        low = -high
    span = high - low
    scale = tl.div_rn(tl.where(span > 0, span, 2.0), tl.full(span.shape, TOP, tl.float32))
    zero = tl.full(span.shape, (TOP + 1) // 2, tl.float32)
    if not SYMMETRIC:
        zero = _nearest(tl.div_rn(-low, scale), TOP)
    wide = tl.broadcast_to(scale[:, None], values.shape)
    codes = _nearest(tl.div_rn(values, wide) + zero[:, None], TOP)
    return (codes - zero[:, None]) * scale[:, None] - values


@triton.jit
def _nearest(values, TOP: tl.constexpr):
    """The whole number from 0 to TOP that is nearest, the even one of two: float32 holds no fraction from 2^23 on."""
    return (tl.minimum(tl.maximum(values, 0.0), TOP) + 12582912.0) - 12582912.0


@triton.jit
def _output_errors(difference, products, PRECISION: tl.constexpr):
    return tl.sum(tl.dot(difference, products, input_precision=PRECISION) * difference, 1)
