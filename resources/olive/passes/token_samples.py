"""Token samples as an Olive data component, so that every Olive pass that calibrates can read the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from olive.data.registry import Registry
from torch.utils.data import Dataset


class TokenSamples(Dataset):
    """Pairs of model inputs and no label, from rows of token ids of one length."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = torch.tensor(rows, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        ids = self.rows[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 0


@Registry.register_dataset("olive_press_token_samples")
def load_token_samples(file: str) -> TokenSamples:
    """The samples in `file`, a JSON list of equally long lists of token ids."""
    return TokenSamples(json.loads(Path(file).read_text(encoding="utf-8")))
