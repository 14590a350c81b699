"""What AWQ needs to know of a linear layer's inputs, gathered while calibration text runs through a decoder layer.

No inputs are kept: a group of weights that rounding changes by d changes the outputs by Σ (d · x)² = d · Σ x·xᵀ · dᵀ,
so that the Gram matrices Σ x·xᵀ of the groups' columns tell every such error exactly, over all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from resources.olive.passes.quantization_grid import GridShape


class InputStatistics:
    """Statistics of inputs x, [tokens, columns], of one linear layer or of several that read the same tensor."""

    def __init__(self, shape: GridShape) -> None:
        self._shape = shape
        self._tokens = 0
        self._magnitude: torch.Tensor | float = 0.0
        self._gram: torch.Tensor | float = 0.0
        self._output_sizes: dict[torch.nn.Module, torch.Tensor] = {}

    def add(self, inputs: torch.Tensor) -> None:
        rows = inputs.reshape(-1, inputs.shape[-1])
        self._tokens += len(rows)
        self._magnitude = self._magnitude + rows.abs().sum(0)
        grouped = self._shape.groups(rows).transpose(0, 1)
        self._gram = self._gram + torch.bmm(grouped.transpose(1, 2), grouped)

    def add_output(self, linear: torch.nn.Module, output: torch.Tensor) -> None:
        bias: Any = getattr(linear, "bias", None)
        size = (output if bias is None else output - bias).square().sum(dtype=torch.float64)
        self._output_sizes[linear] = self._output_sizes.get(linear, 0) + size

    @property
    def magnitude(self) -> torch.Tensor:
        """Mean |x| of each column, [columns]."""
        return torch.as_tensor(self._magnitude) / self._tokens

    @property
    def group_gram(self) -> torch.Tensor:
        """Sum of x·xᵀ over all tokens inside each group of columns, [groups, group size, group size]."""
        return torch.as_tensor(self._gram)

    def output_size(self, linears: Sequence[torch.nn.Module]) -> float:
        """Sum of (W · x)² over all tokens and the outputs of `linears`."""
        return float(sum(self._output_sizes[linear] for linear in linears))

    def divide(self, scale: torch.Tensor) -> None:
        """Make these the statistics of x / scale, for weights that are scaled in turn."""
        self._magnitude = self._magnitude / scale
        self._gram = self._gram / self._shape.outer(scale)


@contextmanager
def gathered(modules: Sequence[torch.nn.Module], shape: GridShape) -> Iterator[dict[torch.nn.Module, InputStatistics]]:
    """Inside the block, forward passes fill the statistics of `modules`; those that read one tensor share theirs."""
    statistics: dict[torch.nn.Module, InputStatistics] = {}
    seen: list[tuple[torch.Tensor, torch.nn.Module]] = []

    def gather(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if seen and seen[-1][0] is inputs[0]:
            statistics[module] = statistics[seen[-1][1]]
        else:
            seen[:] = [(inputs[0], module)]
            statistics.setdefault(module, InputStatistics(shape)).add(inputs[0])
        statistics[module].add_output(module, output)

    hooks = [module.register_forward_hook(gather) for module in modules]
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()
