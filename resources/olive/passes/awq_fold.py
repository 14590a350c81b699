"""Which linear layers AWQ can scale in a decoder layer, and which operation before them takes the inverse scale.

A scale s on the input columns of W is free when the operation before divides its outputs by s:
(W · diag(s)) · (diag(s)⁻¹ · x) = W · x. A norm does (its weight), and so does a linear layer whose output reaches W
through operations that are linear in it (v → attention → o, up → gating → down).

Architectures differ in what really feeds what, so that each fold is tried with a random scale on real hidden states;
one that changes what the layer computes is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from olive.common.hf.wrapper import LayerWrapper, ModelWrapper
from torch import nn

TOLERANCE = 1e-3  # of what the layer adds, in float32; a wrong fold changes more than a tenth


@dataclass(frozen=True)
class Fold:
    """Linear layers that read the same input, and the operation before them.

    heads: (key-value heads, query heads per key-value head, head size) where grouped-query attention lies between, so
    that query heads of one group share their scale.
    offset: what the norm adds to its weight before multiplying (Gemma's norms: 1).
    """

    name: str
    previous: nn.Module
    linears: tuple[nn.Linear, ...]
    heads: tuple[int, int, int] | None = None
    offset: float = 0.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        modules = (self.previous, *self.linears)
        return [parameter for module in modules for parameter in module.parameters(recurse=False)]

    def shared(self, values: torch.Tensor) -> torch.Tensor:
        """`values` of the input columns, [columns], with the mean over columns that must share a scale."""
        if self.heads is None:
            return values
        grouped = values.view(self.heads)
        return grouped.mean(1, keepdim=True).expand_as(grouped).reshape(-1)

    @torch.no_grad()
    def apply(self, scale: torch.Tensor) -> None:
        """Multiply the linear layers' columns by `scale`, [columns], and divide what feeds them by it."""
        for linear in self.linears:
            linear.weight *= scale
        inverse = 1 / (scale if self.heads is None else scale.view(self.heads)[:, 0].reshape(-1))
        weight = self.previous.get_parameter("weight")
        bias = getattr(self.previous, "bias", None)
        rows = len(inverse)  # of a fused projection: the last rows, which are v or up
        if weight.dim() == 1:
            weight.copy_((weight + self.offset) * inverse - self.offset)
        else:
            weight[-rows:] *= inverse[:, None]
        if bias is not None:
            bias[-rows:] *= inverse


def possible_folds(wrapper: ModelWrapper, layer: LayerWrapper) -> list[Fold]:
    """The folds that AWQ knows, as far as the layer has the modules and their shapes fit; not yet tried."""
    attention_inputs = _linears(layer.get_attention_inputs)
    attention_outputs = _linears(layer.get_attention_outputs)
    mlp_inputs, mlp_outputs = _linears(layer.get_mlp_inputs), _linears(layer.get_mlp_outputs)
    return [
        *_after_norm("attention inputs", layer.get_first_layer_norm, attention_inputs),
        *_after_value("attention output", attention_inputs[-1:], attention_outputs, _heads(wrapper)),
        *_after_norm("mlp inputs", layer.get_second_layer_norm, mlp_inputs),
        *_after_up("mlp output", mlp_inputs[::-1], mlp_outputs),
    ]


def working_folds(
    folds: Sequence[Fold], compute: Callable[[], torch.Tensor], inputs: torch.Tensor, outputs: torch.Tensor
) -> list[Fold]:
    """One fold of each name under which `compute`, the layer on `inputs`, still gives `outputs`."""
    size = (outputs - inputs).norm()

    def works(tried: Sequence[Fold]) -> bool:
        kept = [(parameter, parameter.detach().clone()) for fold in tried for parameter in fold.parameters]
        generator = torch.Generator().manual_seed(0)
        for fold in tried:
            columns = torch.empty(fold.linears[0].in_features).uniform_(-1, 1, generator=generator)
            fold.apply(fold.shared(columns).exp().to(inputs.device))
        difference = (compute() - outputs).norm()
        with torch.no_grad():
            for parameter, values in reversed(kept):
                parameter.copy_(values)
        return bool(difference <= TOLERANCE * size)

    first = list({fold.name: fold for fold in reversed(folds)}.values())[::-1]
    if works(first):  # the usual case: one extra forward pass
        return first
    chosen: dict[str, Fold] = {}
    for fold in folds:
        if fold.name not in chosen and works([fold]):
            chosen[fold.name] = fold
    return list(chosen.values())


def _after_norm(name: str, get_norm: Callable[..., Any], linears: list[nn.Linear]) -> list[Fold]:
    norms = [norm for norm in _modules(get_norm) if isinstance(getattr(norm, "weight", None), nn.Parameter)]
    if not linears or not norms or norms[0].weight.shape != (linears[0].in_features,):
        return []
    return [Fold(name, norms[0], tuple(linears), offset=offset) for offset in (0.0, 1.0)]


def _after_value(
    name: str, values: list[nn.Linear], outputs: list[nn.Linear], heads: tuple[int, int, int]
) -> list[Fold]:
    groups, queries, size = heads
    if len(outputs) != 1 or outputs[0].in_features != groups * queries * size:
        return []
    return [Fold(name, value, (outputs[0],), heads) for value in values if value.out_features >= groups * size]


def _after_up(name: str, ups: list[nn.Linear], downs: list[nn.Linear]) -> list[Fold]:
    if len(downs) != 1:
        return []
    return [Fold(name, up, (downs[0],)) for up in ups if up.out_features >= downs[0].in_features]


def _heads(wrapper: ModelWrapper) -> tuple[int, int, int]:
    attention: Any = wrapper
    groups = attention.num_key_value_heads
    return groups, attention.num_attention_heads // groups, attention.head_dim


def _linears(get: Callable[..., Any]) -> list[nn.Linear]:
    modules = _modules(get)
    return modules if all(isinstance(module, nn.Linear) for module in modules) else []


def _modules(get: Callable[..., Any]) -> list[Any]:
    """What Olive finds; nothing where this layer has no such modules (hybrid architectures, other norms)."""
    try:
        found = get(return_name=False)
    except AttributeError:
        return []
    return found if isinstance(found, list) else [found]
