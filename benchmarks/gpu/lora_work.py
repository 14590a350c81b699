"""The operations that a LoRA training must do: those of its tokens, none for padding, none twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def operations(shape: Mapping[str, int], rank: int, rows: Sequence[tuple[int, int]]) -> int:
    """Multiplications plus additions of one pass forth and back over `rows`: (tokens, response tokens) each.

    The frozen weights take a product forth and one back to their inputs, the adapter one more back to its own weights.
    """
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    projections = [(3 * hidden, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner)]
    frozen = layers * sum(outputs * inputs for outputs, inputs in projections)
    adapter = layers * sum(rank * (outputs + inputs) for outputs, inputs in projections)
    tokens, responses = sum(row[0] for row in rows), sum(row[1] for row in rows)
    attention = layers * hidden * sum(row[0] ** 2 for row in rows) * 2 * 3  # q·k and p·v, half masked; back is twice
    head = 2 * 2 * shape["vocab_size"] * hidden * responses
    return (2 * 2 * frozen + 3 * 2 * adapter) * tokens + attention + head
