"""How long a sequence a model takes, and the length at which its rotary factors change, from its config.json.

Phi-3's longrope (arXiv 2402.13753) has two sets of factors: sequences of at most `original_max_position_embeddings`
tokens take the short ones, longer sequences the long ones, from their first token on. So a model gives other logits for
the same tokens in a longer sequence, and the longest row of a padded batch decides for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.errors import ConfigurationError

TWO_SETS = ("longrope", "su")


def context_length(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model with this config.json takes, in tokens; None where it does not say."""
    return config.get("max_position_embeddings")


def rope_switch(config: Mapping[str, Any]) -> int | None:
    """The longest sequence, in tokens, that takes the short factors; None for a model with one set of factors."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (rope.get("rope_type") or rope.get("type")) not in TWO_SETS:
        return None
    return rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")


def check_fits(config: Mapping[str, Any], tokens: int, place: str) -> None:
    """Raise a ConfigurationError, at `place`, for sequences of `tokens` tokens that are longer than the context."""
    longest = context_length(config)
    if longest is not None and tokens > longest:
        raise ConfigurationError(place, f"{tokens} tokens", f"at most {longest}, the context of the base model")
