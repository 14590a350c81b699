"""Answers of an onnx_model to the prompts of rows, with and without its adapter: text, chrF, speed, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from resources.errors import StageError, told_error
from resources.genai import Generation, decode_speed
from resources.progress import Progress

PROJECT = Path(__file__).resolve().parent.parent


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
    """Greedy answers of the model in `folder` to the prompts of `rows`, of its base and with `adapter` in turn.

    They are given in a process of their own (answering.py), whose peak memory is that of answering and nothing else.
    """
    request = {
        "folder": str(folder.absolute()),
        "adapter": adapter,
        "prompts": [row["prompt"] for row in rows],
        "max_new_tokens": max_new_tokens,
    }
    told = _ask(request, progress)
    base, adapted = ([Generation(**answer) for answer in told[name]] for name in ("base", "adapter"))
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
        peak_memory_bytes=told["peak_memory_bytes"],
    )


def _ask(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """What the answering process says at its end; raises the error that it told."""
    command = [sys.executable, "-m", "resources.answering"]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()  # it stays open: its end tells that nobody waits any more
        told: dict[str, Any] = {}
        for line in process.stdout:
            told = json.loads(line)
            if "step" in told:
                progress.step("answers", *told["step"])
        process.wait()
    if "error" in told:
        raise told_error(told["error"])
    if process.returncode != 0 or "base" not in told:
        raise StageError(
            "eval_report",
            f"the process that answers ended without answers (code {process.returncode})",
            "Its output above tells why; code -9 is a kill, most often for lack of memory",
        )
    return told


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF of `texts`, 0 to 100, one reference a text."""
    from sacrebleu.metrics.chrf import CHRF

    return CHRF().corpus_score(texts, [references]).score
