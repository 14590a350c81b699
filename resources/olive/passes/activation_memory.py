"""Whether the activations of a training step fit beside the model, or have to be computed twice.

Gradient checkpointing (arXiv 1604.06174) keeps one hidden state of each layer and computes the others again on the way
back: a third more work. So it is for the step that does not fit without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resources.placement import free_memory

# Values that autograd keeps of a token in a layer with LoRA on every projection, in multiples of the hidden and of the
# inner size. A model of Phi-3.5-mini's shape kept 93,000 values on an H200, four fifths of these.
HIDDEN_VALUES, INNER_VALUES = 14, 9
ROOM = 0.9  # of the free memory


def step_bytes(config: Any, tokens: int, trained: int, value_bytes: int) -> int:
    """What a step on `tokens` tokens takes beside the base: activations, logits, adapter, gradients and moments.

    config: of the transformers model. trained: parameters that are trained, in float32. value_bytes: 2 for bfloat16.
    """
    layer = (HIDDEN_VALUES * config.hidden_size + INNER_VALUES * config.intermediate_size) * value_bytes
    logits = config.vocab_size * (4 + 4 + value_bytes)
    return tokens * (config.num_hidden_layers * layer + logits) + trained * 4 * 4


def adapter_size(model: Any, targets: Sequence[str], rank: int) -> int:
    """The parameters of an adapter of `rank` on the linear layers of `model` whose names end with one of `targets`."""
    from torch import nn

    layers = [module for name, module in model.named_modules() if name.rpartition(".")[2] in targets]
    return sum(rank * (one.in_features + one.out_features) for one in layers if isinstance(one, nn.Linear))


def needs_checkpointing(model: Any, tokens: int, trained: int) -> bool:
    """Whether a step is more than the free memory of the GPU that `model` is on, see step_bytes; never on a CPU."""
    if model.device.type != "cuda":
        return False
    return step_bytes(model.config, tokens, trained, model.dtype.itemsize) > ROOM * free_memory(model.device)
