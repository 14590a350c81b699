"""What AWQ needs to know of a linear layer's inputs, gathered while calibration text runs through a decoder layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from resources.olive.passes.quantization_grid import GridShape


class InputStatistics:
    """Statistics of inputs x, [tokens, columns], of one linear layer or of several that read the same tensor.

    Means and Gram matrices are exact over all tokens; the scale search judges by evenly spread tokens.
    """

    def __init__(self, shape: GridShape, token_stride: int) -> None:
        self._shape = shape
        self._token_stride = token_stride
        self._tokens = 0
        self._magnitude: torch.Tensor | float = 0.0
        self._gram: torch.Tensor | float = 0.0
        self._kept: list[torch.Tensor] = []

    def add(self, inputs: torch.Tensor) -> None:
        rows = inputs.reshape(-1, inputs.shape[-1])
        self._tokens += len(rows)
        self._magnitude = self._magnitude + rows.abs().sum(0)
        grouped = self._shape.groups(rows).transpose(0, 1)
        self._gram = self._gram + torch.bmm(grouped.transpose(1, 2), grouped)
        self._kept.append(rows[:: self._token_stride].clone())

    @property
    def magnitude(self) -> torch.Tensor:
        """Mean |x| of each column, [columns]."""
        return torch.as_tensor(self._magnitude) / self._tokens

    @property
    def group_gram(self) -> torch.Tensor:
        """Sum of x·xᵀ over all tokens inside each group of columns, [groups, group size, group size]."""
        return torch.as_tensor(self._gram)

    @property
    def tokens(self) -> torch.Tensor:
        """The inputs of every `token_stride`-th token, [kept tokens, columns]."""
        if len(self._kept) > 1:
            self._kept = [torch.cat(self._kept)]
        return self._kept[0]

    def divide(self, scale: torch.Tensor) -> None:
        """Make these the statistics of x / scale."""
        self._magnitude = self._magnitude / scale
        self._gram = self._gram / self._shape.outer(scale)
        self._kept = [self.tokens / scale]


@contextmanager
def gathered(
    modules: Sequence[torch.nn.Module], shape: GridShape, token_stride: int
) -> Iterator[dict[torch.nn.Module, InputStatistics]]:
    """Inside the block, forward passes fill the statistics of `modules`; those that read one tensor share theirs."""
    statistics: dict[torch.nn.Module, InputStatistics] = {}
    seen: list[tuple[torch.Tensor, torch.nn.Module]] = []

    def gather(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _: object) -> None:
        if seen and seen[-1][0] is inputs[0]:
            statistics[module] = statistics[seen[-1][1]]
            return
        seen[:] = [(inputs[0], module)]
        statistics.setdefault(module, InputStatistics(shape, token_stride)).add(inputs[0])

    hooks = [module.register_forward_hook(gather) for module in modules]
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()
