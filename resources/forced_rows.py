"""Held-out rows teacher-forced through the shipped graph, the exact graph and PyTorch: perplexity and parity."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.parity import Parity, response_loss
from resources.progress import Progress
from resources.teacher_forcing import TeacherForcedGraph

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ForcedRows:
    """Perplexity of the responses on the shipped graph; parity by graph: exact, exact_base, shipped, shipped_base."""

    perplexity_base: float
    perplexity_adapter: float
    parity: Mapping[str, Parity]
    parity_rows: int


def force_rows(
    inputs: Mapping[str, Path],
    adapter: str,
    rows: Sequence[dict[str, str]],
    parity_rows: int,
    scratch: Path,
    progress: Progress,
) -> ForcedRows:
    """Force `rows` through the graphs; the first `parity_rows` of them through PyTorch as well.

    inputs: folders of onnx_model, onnx_graph_exact, awq_model and lora_adapter.
    """
    from transformers import AutoTokenizer

    from resources.olive.passes.response_rows import end_of_turn, tokenised_row

    tokenizer = AutoTokenizer.from_pretrained(inputs["awq_model"], local_files_only=True)
    end = end_of_turn(tokenizer)
    tokenised = [tokenised_row(row, tokenizer, end) for row in rows]
    sequences = [list(row.prompt + row.response) for row in tokenised]
    starts = [len(row.prompt) for row in tokenised]
    compared = min(parity_rows, len(rows))
    torch_base, torch_adapted = _torch_logits(inputs, sequences[:compared], progress)
    parity: dict[str, Parity] = {}
    perplexity: dict[str, float] = {}
    shipped, exact = inputs["onnx_model"], _exact_model(inputs, scratch, adapter)
    for name, folder, used, reference, count in (
        ("shipped", shipped, adapter, torch_adapted, len(rows)),
        ("shipped_base", shipped, None, torch_base, len(rows)),
        ("exact", exact, adapter, torch_adapted, compared),
        ("exact_base", exact, None, torch_base, compared),
    ):
        graph = TeacherForcedGraph(folder, used)
        parity[name], perplexity[name] = _compare(graph, sequences[:count], starts, reference, name, progress)
    return ForcedRows(perplexity["shipped_base"], perplexity["shipped"], parity, compared)


def _compare(
    graph: TeacherForcedGraph,
    sequences: Sequence[list[int]],
    starts: Sequence[int],
    reference: Sequence[np.ndarray],
    name: str,
    progress: Progress,
) -> tuple[Parity, float]:
    """Parity with `reference` (logits of the first sequences) and perplexity over all sequences' responses."""
    parity, loss, tokens = Parity(), 0.0, 0
    for index, sequence in enumerate(sequences):
        logits = graph.logits(sequence)
        if index < len(reference):
            parity.add(reference[index], logits)
        row_loss, row_tokens = response_loss(logits, sequence, starts[index])
        loss, tokens = loss + row_loss, tokens + row_tokens
        progress.step(name.replace("_", " "), index + 1, len(sequences))
    return parity, math.exp(loss / tokens)


def _torch_logits(
    inputs: Mapping[str, Path], sequences: Sequence[list[int]], progress: Progress
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits of the awq model without and with the PEFT adapter, [tokens, vocabulary] a sequence."""
    import torch
    from peft import PeftModel

    from resources.olive.awq_folder import load_dequantized

    model: Any = PeftModel.from_pretrained(load_dequantized(inputs["awq_model"]), str(inputs["lora_adapter"])).eval()
    base: list[np.ndarray] = []
    adapted: list[np.ndarray] = []
    with torch.no_grad():
        for index, sequence in enumerate(sequences):
            ids = torch.tensor([sequence])
            adapted.append(model(ids).logits[0].float().numpy())
            with model.disable_adapter():
                base.append(model(ids).logits[0].float().numpy())
            progress.step("pytorch", index + 1, len(sequences))
    return base, adapted


def _exact_model(inputs: Mapping[str, Path], scratch: Path, adapter: str) -> Path:
    """The graph built for exactness with the same adapter grafted onto it."""
    from resources.olive.graft import graft_adapter

    folder = scratch / "exact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    graft_adapter(inputs["onnx_graph_exact"], inputs["lora_adapter"], folder, adapter)
    return folder
