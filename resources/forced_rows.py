"""Held-out rows teacher-forced through the shipped graph, the exact graph and PyTorch: perplexity and parity."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.context import context_length, rope_switch
from resources.errors import StageError
from resources.parity import Parity, response_loss, seen_prefix
from resources.progress import Progress
from resources.pytorch_reference import PytorchReference
from resources.teacher_forcing import TeacherForcedGraph

if TYPE_CHECKING:
    from resources.olive.passes.response_rows import ResponseRow

GRAPHS = ("exact", "exact_base", "shipped", "shipped_base")


@dataclass(frozen=True)
class ForcedRows:
    """Perplexity of the responses on the shipped graph; parity by graph: exact, exact_base, shipped, shipped_base."""

    perplexity_base: float
    perplexity_adapter: float
    parity: Mapping[str, Parity]
    parity_rows: int


@dataclass(frozen=True)
class ForcedModels:
    """What rows are forced through; `adapter` is the name it has in both graphs.

    switch: the longest row that takes the short rotary factors, where the models have two sets of them.
    """

    shipped: TeacherForcedGraph
    exact: TeacherForcedGraph
    pytorch: PytorchReference
    adapter: str
    switch: int | None = None


def open_forced_models(
    inputs: Mapping[str, Path], adapter: str, scratch: Path, device: str = "cpu", trust_remote_code: bool = False
) -> ForcedModels:
    """The models in the folders onnx_model, onnx_graph_exact (gets the adapter grafted on), awq_model, lora_adapter."""
    from resources.olive.graft import graft_adapter

    exact = scratch / "exact"
    shutil.rmtree(exact, ignore_errors=True)  # an interrupted attempt's
    graft_adapter(inputs["onnx_graph_exact"], inputs["lora_adapter"], exact, adapter)
    return ForcedModels(
        TeacherForcedGraph(inputs["onnx_model"]),
        TeacherForcedGraph(exact),
        PytorchReference(inputs["awq_model"], inputs["lora_adapter"], device, trust_remote_code),
        adapter,
        rope_switch(_config(inputs["awq_model"])),
    )


def check_rows(rows: Sequence[ResponseRow], awq_model: Path) -> None:
    """Raise a StageError for a row that is longer than the context of the model."""
    longest, context = max(len(row) for row in rows), context_length(_config(awq_model))
    if context is not None and longest > context:
        raise StageError(
            "eval_report",
            f"a held-out row has {longest} tokens, and the model takes at most {context}",
            "Shorten the row or leave it out",
        )


def _config(awq_model: Path) -> dict[str, Any]:
    return json.loads((awq_model / "config.json").read_text(encoding="utf-8"))


def tokenise_rows(rows: Sequence[dict[str, str]], folder: Path, trust_remote_code: bool = False) -> list[ResponseRow]:
    """`rows` as token ids, by the tokenizer in `folder`, just as the adapter was trained on them."""
    from transformers import AutoTokenizer

    from resources.olive.passes.response_rows import end_of_turn, tokenised_row

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    end = end_of_turn(tokenizer)
    return [tokenised_row(row, tokenizer, end) for row in rows]


def force_rows(
    models: ForcedModels, rows: Sequence[ResponseRow], compared: Collection[int], progress: Progress
) -> ForcedRows:
    """Force `rows` through the shipped graph, and those whose numbers are in `compared` through all models.

    Only one row's logits are in memory at a time. A context counts once for parity, however many rows begin with it
    (all begin with the same system prompt); with other rotary factors it is another context.
    """
    parity = {name: Parity() for name in GRAPHS}
    loss = {True: 0.0, False: 0.0}
    seen: dict[bool, list[list[int]]] = {True: [], False: []}  # of rows beyond the switch, and of others
    for number, row in enumerate(rows):
        ids = [*row.prompt, *row.response]
        known = seen[models.switch is not None and len(ids) > models.switch]
        new = seen_prefix(ids, known)
        for adapted in (True, False):
            adapter, suffix = (models.adapter, "") if adapted else (None, "_base")
            shipped = models.shipped.logits(ids, adapter)
            loss[adapted] += response_loss(shipped, ids, len(row.prompt))
            if number in compared:
                reference = models.pytorch.logits(ids, adapted)
                parity["shipped" + suffix].add(reference[new:], shipped[new:])
                parity["exact" + suffix].add(reference[new:], models.exact.logits(ids, adapter)[new:])
        if number in compared:
            known.append(ids)
        progress.step("held-out rows", number + 1, len(rows))
    tokens = sum(len(row.response) for row in rows)
    return ForcedRows(
        _perplexity(loss[False], tokens), _perplexity(loss[True], tokens), parity, sum(map(len, seen.values()))
    )


def _perplexity(loss: float, tokens: int) -> float:
    """exp of the mean loss; infinite where that has no float."""
    try:
        return math.exp(loss / tokens)
    except OverflowError:
        return math.inf
