"""Perplexity of a causal language model on samples of token ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from resources.placement import input_device


def perplexity(model: Any, samples: Sequence[Sequence[int]]) -> float:
    """exp of the mean negative log-likelihood, in nats, of each sample's tokens after its first."""
    import torch
    from torch.nn.functional import cross_entropy

    device = input_device(model)
    total, predicted = 0.0, 0
    with torch.inference_mode():
        for sample in samples:
            ids = torch.tensor([sample], device=device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            predicted += len(sample) - 1
    return math.exp(total / predicted)
