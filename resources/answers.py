"""Answers of an onnx_model to the prompts of rows, with and without its adapter: text, chrF, speed, memory."""

from __future__ import annotations

import math
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
    """samples: {"prompt", "reference", "base", "adapter"} a row. Seconds to the first token are medians over the rows.

    tokens_per_second: decoded tokens after the first one over the time they took, all rows together; NaN when no
    answer has a second token.
    """

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
    """Greedy answers of the model in `folder` to the prompts of `rows`, of its base and with `adapter` in turn."""
    model = GenaiModel(folder, adapter)
    for name in (None, adapter):
        model.use_adapter(name)
        model.generate(rows[0]["prompt"], WARM_UP_TOKENS)
    base: list[Generation] = []
    adapted: list[Generation] = []
    for number, row in enumerate(rows):
        # in turn for each row, so that a machine that slows down slows both
        for name, answers in ((None, base), (adapter, adapted)):
            model.use_adapter(name)
            answers.append(model.generate(row["prompt"], max_new_tokens))
        note = f"{decode_speed(adapted):.0f} tokens/s" if adapted[-1].tokens > 1 else ""
        progress.step("answers", number + 1, len(rows), note)
    peak = peak_memory_bytes()  # before anything else is loaded
    references = [row["response"] for row in rows]
    return Answers(
        samples=[
            {"prompt": row["prompt"], "reference": row["response"], "base": one.text, "adapter": other.text}
            for row, one, other in zip(rows, base, adapted, strict=True)
        ],
        chrf_base=chrf([one.text for one in base], references),
        chrf_adapter=chrf([one.text for one in adapted], references),
        tokens_per_second=decode_speed(adapted),
        tokens_per_second_base=decode_speed(base),
        first_token_seconds=median(one.first_token_seconds for one in adapted),
        first_token_seconds_base=median(one.first_token_seconds for one in base),
        peak_memory_bytes=peak,
    )


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF of `texts`, 0 to 100, one reference a text."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF().corpus_score(texts, [references]).score


def decode_speed(answers: Sequence[Generation]) -> float:
    """Tokens a second after each answer's first token; NaN when no answer has a second one."""
    tokens = sum(answer.tokens - 1 for answer in answers if answer.tokens > 1)
    seconds = sum(answer.seconds - answer.first_token_seconds for answer in answers if answer.tokens > 1)
    return tokens / seconds if seconds > 0 else math.nan
