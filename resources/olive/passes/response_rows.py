"""Tokenised rows of which only the response counts: one row, one sample, in the tokenizer's chat template."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from olive.data.constants import IGNORE_INDEX

WINDOW = 8  # batches whose rows are sorted by length together; less padding, still well mixed


@dataclass(frozen=True)
class ResponseRow:
    """Token ids of a row: the prompt as it is asked, the response with the token that ends the turn."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    def sample(self) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask and labels, each [tokens]; the labels leave the prompt out."""
        ids = torch.tensor(self.prompt + self.response)
        labels = ids.clone()
        labels[: len(self.prompt)] = IGNORE_INDEX
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def tokenised_rows(file: Path, tokenizer: Any) -> list[ResponseRow]:
    """The rows {"prompt", "response"} of a UTF-8 file of JSON lines, tokenised."""
    end = end_of_turn(tokenizer)
    lines = file.read_bytes().splitlines()  # as text it would also split at U+2028, which JSON may hold
    return [tokenised_row(json.loads(line), tokenizer, end) for line in lines if line.strip()]


def tokenised_row(row: dict[str, str], tokenizer: Any, end: int) -> ResponseRow:
    """A row {"prompt", "response"} as token ids; `end` is the token that ends the turn (see end_of_turn)."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, tokenize=False
    )
    prompt = tokenizer(asked, add_special_tokens=False).input_ids
    both = tokenizer(asked + row["response"], add_special_tokens=False).input_ids
    # A tokenizer may merge across the border; the prompt is asked alone later, so then the response stands alone too.
    joined = both[: len(prompt)] == prompt
    response = both[len(prompt) :] if joined else tokenizer(row["response"], add_special_tokens=False).input_ids
    return ResponseRow(tuple(prompt), (*response, end))


def end_of_turn(tokenizer: Any) -> int:
    """The id of the token that the chat template puts after a response; the end-of-text token where it puts none."""
    question = {"role": "user", "content": "Q"}
    answered = tokenizer.apply_chat_template([question, {"role": "assistant", "content": "A"}], tokenize=False)
    asked = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    if answered.startswith(asked + "A"):
        rest = tokenizer(answered[len(asked) + 1 :], add_special_tokens=False).input_ids
        if rest and rest[0] in tokenizer.added_tokens_decoder:
            return rest[0]
    return tokenizer.eos_token_id


def training_order(lengths: Sequence[int], steps: int, batch_size: int, seed: int) -> list[int]:
    """Row numbers in the order to train them, steps x batch_size of them; each epoch takes every row once.

    Rows of like length share a batch (WINDOW batches are sorted together), and the batches are shuffled again.
    """
    chance = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        order += chance.sample(range(len(lengths)), len(lengths))
    batches: list[list[int]] = []
    window = WINDOW * batch_size
    for start in range(0, steps * batch_size, window):
        rows = sorted(order[start : min(start + window, steps * batch_size)], key=lambda row: lengths[row])
        cut = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
        chance.shuffle(cut)
        batches += cut
    return [row for batch in batches for row in batch]
