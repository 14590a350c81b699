"""How close two models' next-token distributions are: same greedy token, KL divergence; and perplexity of a response.

KL(p || q) = sum_v p(v) (log p(v) - log q(v)), p the reference, in nats, mean over positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Parity:
    """Running comparison of a reference with a candidate over positions of token sequences."""

    tokens: int = 0
    agreeing: int = 0
    kl_sum: float = 0.0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Compare [tokens, vocabulary] logits of both, position by position."""
        import numpy as np

        log_p, log_q = log_softmax(reference), log_softmax(candidate)
        self.tokens += len(reference)
        self.agreeing += int((reference.argmax(-1) == candidate.argmax(-1)).sum())
        self.kl_sum += float((np.exp(log_p) * (log_p - log_q)).sum())

    def as_json(self) -> dict[str, float | int]:
        """{"agreement": share of equal greedy tokens, "kl_nats": mean KL(reference || candidate), "tokens": count}."""
        if self.tokens == 0:
            return {"agreement": math.nan, "kl_nats": math.nan, "tokens": 0}
        # rounding in float32 can leave a mean of zero a hair below zero
        return {
            "agreement": self.agreeing / self.tokens,
            "kl_nats": max(0.0, self.kl_sum / self.tokens),
            "tokens": self.tokens,
        }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities along the last axis, float64."""
    import numpy as np

    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def response_loss(logits: np.ndarray, token_ids: list[int], response_start: int) -> tuple[float, int]:
    """Sum of -log p over the tokens from `response_start` on, and their count; logits as of the whole sequence."""
    import numpy as np

    rows = log_softmax(logits[response_start - 1 : len(token_ids) - 1])
    targets = np.asarray(token_ids[response_start:])
    return float(-rows[np.arange(len(targets)), targets].sum()), len(targets)
