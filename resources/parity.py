"""How close two models' next-token distributions are: same greedy token, KL divergence; and the loss of a response.

KL(p || q) = sum_v p(v) (log p(v) - log q(v)), p the reference, in nats, mean over positions. With logits x and y it is
sum_v p(v) (x(v) - y(v)) - logsumexp(x) + logsumexp(y), which needs two passes over the vocabulary and no logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

POSITIONS = 32  # compared at a time: in float64 a vocabulary of 50,000 then takes 13 MB


@dataclass
class Parity:
    """Running comparison of a reference with a candidate over positions of token sequences."""

    tokens: int = 0
    agreeing: int = 0
    kl_sum: float = 0.0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Compare [tokens, vocabulary] logits of both, position by position; another shape is a ValueError."""
        if reference.shape != candidate.shape:
            raise ValueError(f"logits of shape {candidate.shape} beside a reference of shape {reference.shape}")
        self.tokens += len(reference)
        self.agreeing += int((reference.argmax(-1) == candidate.argmax(-1)).sum())
        for start in range(0, len(reference), POSITIONS):
            self.kl_sum += _kl_sum(reference[start : start + POSITIONS], candidate[start : start + POSITIONS])

    def as_json(self) -> dict[str, float | int]:
        """{"agreement": share of equal greedy tokens, "kl_nats": mean KL(reference || candidate), "tokens": count}.

        NaN where nothing was compared, or where a logit is not finite.
        """
        if self.tokens == 0:
            return {"agreement": math.nan, "kl_nats": math.nan, "tokens": 0}
        kl = self.kl_sum / self.tokens
        # rounding can leave a mean of zero a hair below zero; NaN stays NaN
        return {"agreement": self.agreeing / self.tokens, "kl_nats": 0.0 if kl < 0 else kl, "tokens": self.tokens}


def seen_prefix(sequence: Sequence[int], earlier: Sequence[Sequence[int]]) -> int:
    """How many first tokens of `sequence` begin one of `earlier`, too: contexts that were compared already."""
    longest = 0
    for other in earlier:
        length = 0
        while length < min(len(sequence), len(other)) and sequence[length] == other[length]:
            length += 1
        longest = max(longest, length)
    return longest


def response_loss(logits: np.ndarray, token_ids: Sequence[int], response_start: int) -> float:
    """Sum of -log p, in nats, over the tokens from `response_start` on; logits [tokens, vocabulary] of the sequence."""
    import numpy as np

    rows = logits[response_start - 1 : len(token_ids) - 1].astype(np.float64)
    targets = np.asarray(token_ids[response_start:])
    return float((_logsumexp(rows) - rows[np.arange(len(targets)), targets]).sum())


def _kl_sum(reference: np.ndarray, candidate: np.ndarray) -> float:
    import numpy as np

    x, y = reference.astype(np.float64), candidate.astype(np.float64)
    normaliser = _logsumexp(x)
    p = np.exp(x - normaliser[:, None])
    return float((np.einsum("tv,tv->t", p, x - y) - normaliser + _logsumexp(y)).sum())


def _logsumexp(logits: np.ndarray) -> np.ndarray:
    import numpy as np

    highest = logits.max(-1)
    with np.errstate(invalid="ignore"):  # a logit that is not finite makes NaN, and the caller looks
        return highest + np.log(np.exp(logits - highest[:, None]).sum(-1))
