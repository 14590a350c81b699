"""The English prose that AWQ is calibrated on, and other prose of the same text to measure on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError

PYTHON_DOCS = "python-docs"
PLACE = "awq_model.calibration_text"
CALIBRATION_SHARE = 2 / 3


def read(name_or_path: str, root: Path) -> str:
    """The text called `name_or_path`: "python-docs" (topics that the interpreter ships) or a UTF-8 file from `root`."""
    if name_or_path == PYTHON_DOCS:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[name] for name in sorted(topics))
    file = root / Path(name_or_path).expanduser()
    accepted = f"{PYTHON_DOCS} or a UTF-8 text file"
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(PLACE, f"{file}, which is not UTF-8 at byte {error.start}", accepted) from error
    except OSError as error:
        raise ConfigurationError(PLACE, f"{file} ({error.strerror})", accepted) from error
    if not text.strip():
        raise ConfigurationError(PLACE, f"an empty file {file}", accepted)
    return text


def calibration_part(text: str) -> str:
    """The paragraphs of the first two thirds of `text`."""
    return "\n\n".join(_parts(text)[0])


def measuring_part(text: str) -> str:
    """The paragraphs of the last third that stand nowhere in the calibration part."""
    calibrating, measuring = _parts(text)
    seen = set(calibrating)
    return "\n\n".join(paragraph for paragraph in measuring if paragraph not in seen)


def token_samples(tokenizer: Any, text: str, samples: int, tokens: int, seed: int = 0) -> list[list[int]]:
    """`samples` pieces of `text` of `tokens` token ids each, without overlap, drawn with `seed`, in reading order.

    A text that is too short is a ConfigurationError.
    """
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = len(ids) // tokens
    if pieces < samples:
        raise ConfigurationError(
            PLACE,
            f"a part of the text with {len(ids)} tokens",
            f"at least {samples * tokens} for {samples} samples of {tokens} tokens",
            "Name a longer text, or lower awq_model.samples, measure_samples or tokens",
        )
    drawn = sorted(random.Random(seed).sample(range(pieces), samples))
    return [list(ids[piece * tokens : (piece + 1) * tokens]) for piece in drawn]


def _parts(text: str) -> tuple[list[str], list[str]]:
    paragraphs = [paragraph for paragraph in text.replace("\r\n", "\n").split("\n\n") if paragraph.strip()]
    boundary = CALIBRATION_SHARE * sum(map(len, paragraphs))
    read_so_far = 0
    for index, paragraph in enumerate(paragraphs):
        if read_so_far >= boundary:
            return paragraphs[:index], paragraphs[index:]
        read_so_far += len(paragraph)
    return paragraphs, []
