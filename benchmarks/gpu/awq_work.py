"""The least that the phases of AWQ must do: operations, and bytes that must move, for a model of a Phi-3's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TRIED_BOUNDS = 3 * 11  # awq_clip.py: both bounds, the lower and the higher, each in 11 steps
PRODUCTS = 3  # TF32 products for one of nearly float32 (awq_kernels.PRECISION)


@dataclass(frozen=True)
class Work:
    """Multiplications plus additions on the matrix units, and bytes between the GPU's memory and its processors."""

    operations: float = 0.0
    bytes: float = 0.0


def work(shape: Mapping[str, int], samples: int, tokens: int, group_size: int, ratios: int) -> dict[str, Work]:
    """Phase → what it must do on the GPU; weights and activations are float32 there."""
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    rows_columns = {
        "qkv": (3 * hidden, hidden),
        "o": (hidden, hidden),
        "up": (2 * inner, hidden),
        "down": (hidden, inner),
    }
    weights = layers * sum(rows * columns for rows, columns in rows_columns.values())
    columns = layers * sum(columns for _, columns in rows_columns.values())
    outputs = layers * sum(rows for rows, _ in rows_columns.values())
    text = samples * tokens
    attention = layers * text * tokens * hidden * 2  # q·k and p·v, half of them masked
    gram = 2 * text * columns * group_size
    searched = weights * group_size * 2 * PRODUCTS
    return {
        "calibrate": Work(2 * weights * text + attention + gram, 4 * (weights + text * (columns + outputs))),
        "search": Work(searched * (ratios + 1), 4 * (weights + columns * group_size)),
        "clip": Work(searched * TRIED_BOUNDS, 4 * (weights + columns * group_size)),
        "pack": Work(0, 4.5 * weights),
    }
