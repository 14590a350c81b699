"""The kernels of the AWQ searches against a reference in float64 that multiplies the inputs out, on random data."""

from __future__ import annotations

from typing import Any

ROWS, COLUMNS, TOKENS, RATIOS = 300, 1024, 1000, 20
LIMIT = 1e-4  # TF32 alone would miss it


def check(group_size: int, seed: int) -> dict[str, float]:
    """Relative deviations of the kernels; more than LIMIT, and what is not a number, is an AssertionError."""
    import torch

    from resources.olive.passes.awq_clip import SHRINKS
    from resources.olive.passes.quantization_grid import GridShape, kernels_for

    shape = GridShape(4, group_size, False)
    generator = torch.Generator("cuda").manual_seed(seed)
    weight = torch.randn(ROWS, COLUMNS, device="cuda", generator=generator)
    inputs = torch.randn(TOKENS, COLUMNS, device="cuda", generator=generator) @ torch.diag(
        torch.rand(COLUMNS, device="cuda", generator=generator).exp()
    )
    kernels = kernels_for(weight, shape)
    grouped = shape.groups(inputs.double()).transpose(0, 1)
    gram = grouped.transpose(1, 2) @ grouped
    steps = torch.arange(RATIOS + 1, device="cuda")[:, None] / RATIOS
    candidates = inputs.abs().mean(0)[None] ** steps
    errors = kernels.scale_errors(weight, candidates, gram.float(), shape)
    expected = torch.stack([_scale_error(weight, scale, grouped, shape) for scale in candidates])
    low, high = kernels.best_bounds(weight, gram.float(), SHRINKS, shape)
    ours, best = _bounds_error(weight, low, high, gram, shape), _least_error(weight, gram, shape)
    found = {
        "errors of scales": float((errors - expected).norm() / expected.norm()),
        "error under the chosen bounds": abs(float(ours / best) - 1),
    }
    for what, deviation in found.items():
        assert deviation <= LIMIT, f"{what}: {deviation:.1e} from the reference, accepted: {LIMIT:.0e}"
    return found


def _scale_error(weight: Any, scale: Any, grouped: Any, shape: Any) -> Any:
    """L² with the inputs of every token, [groups, tokens, group size], multiplied out."""
    from resources.olive.passes.quantization_grid import bounds, grid, rounded

    wide, groups = shape.groups_first(scale.double()[None]), shape.groups_first(weight.double())
    scaled = groups * wide
    difference = (rounded(scaled, *grid(*bounds(scaled), shape), shape) - scaled) / wide
    return (grouped @ difference.transpose(1, 2)).square().sum()


def _bounds_error(weight: Any, low: Any, high: Any, gram: Any, shape: Any) -> Any:
    """The output error of `weight` rounded between `low` and `high`, [rows, groups]."""
    from resources.olive.passes.quantization_grid import grid, output_errors, rounded

    groups = shape.groups_first(weight.double())
    scales, zeros = grid(low.double().T.unsqueeze(-1), high.double().T.unsqueeze(-1), shape)
    return output_errors(rounded(groups, scales, zeros, shape) - groups, gram).sum()


def _least_error(weight: Any, gram: Any, shape: Any) -> Any:
    """What awq_clip.py's search in PyTorch reaches in float64."""
    from resources.olive.passes.awq_clip import _best_grid
    from resources.olive.passes.quantization_grid import output_errors, rounded

    groups = shape.groups_first(weight.double())
    return output_errors(rounded(groups, *_best_grid(groups, gram, shape), shape) - groups, gram).sum()
