"""Answers of an onnx_model to the prompts of rows, with and without its adapter: text, chrF, speed, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from resources.genai import GenaiModel, Generation
from resources.peak_memory import peak_memory_bytes
from resources.progress import Progress

WARM_UP_TOKENS = 4  # the first run of a graph also plans its memory


@dataclass(frozen=True)
class Answers:
    """samples: {"prompt", "reference", "base", "adapter"} a row. Speeds are medians over the rows."""

    samples: list[dict[str, str]]
    chrf_base: float
    chrf_adapter: float
    tokens_per_second: float
    tokens_per_second_base: float
    first_token_seconds: float
    first_token_seconds_base: float
    peak_memory_bytes: int


def answer_rows(
    folder: Path, adapter: str, rows: Sequence[dict[str, str]], max_new_tokens: int, progress: Progress
) -> Answers:
    """Greedy answers of the model in `folder` to the prompts of `rows`, base and adapter in turn."""
    from sacrebleu.metrics.chrf import CHRF

    model = GenaiModel(folder, adapter)
    base: list[Generation] = []
    adapted: list[Generation] = []
    for name, answers in ((None, base), (adapter, adapted)):
        model.use_adapter(name)
        model.generate(rows[0]["prompt"], WARM_UP_TOKENS)
        for row in rows:
            answers.append(model.generate(row["prompt"], max_new_tokens))
            progress.step("answers", len(base) + len(adapted), 2 * len(rows))
    peak = peak_memory_bytes()
    references = [[row["response"] for row in rows]]
    samples = [
        {"prompt": row["prompt"], "reference": row["response"], "base": one.text, "adapter": other.text}
        for row, one, other in zip(rows, base, adapted, strict=True)
    ]
    return Answers(
        samples=samples,
        chrf_base=CHRF().corpus_score([one.text for one in base], references).score,
        chrf_adapter=CHRF().corpus_score([one.text for one in adapted], references).score,
        tokens_per_second=median(one.tokens_per_second for one in adapted),
        tokens_per_second_base=median(one.tokens_per_second for one in base),
        first_token_seconds=median(one.first_token_seconds for one in adapted),
        first_token_seconds_base=median(one.first_token_seconds for one in base),
        peak_memory_bytes=peak,
    )
