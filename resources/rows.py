"""Rows of a data set: JSON lines {"prompt", "response"}, read strictly and normalised; each mistake with its line."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resources.errors import ConfigurationError

FIELDS = ("prompt", "response")
ACCEPTED = 'UTF-8, one JSON object a line, {"prompt": "…", "response": "…"}, both non-empty text'
SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One row and the line of the source file that it stands on."""

    line: int
    prompt: str
    response: str


def read_rows(data: bytes, place: str) -> list[Row]:
    """The rows in `data`, normalised; lines end with LF, CRLF or CR, blank ones and a leading BOM are skipped.

    Every mistake of every line is reported in one ConfigurationError at `place`.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationError(place, "UTF-16", ACCEPTED, "Save it as UTF-8")
    rows: list[Row] = []
    mistakes: list[tuple[int, str]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        values, found = _read_line(line)
        mistakes += [(number, mistake) for mistake in found]
        if not found:
            rows.append(Row(number, values["prompt"], values["response"]))
    if mistakes:
        remedy = "It looks like one JSON array: write each object on a line" if data.lstrip()[:1] == b"[" else ""
        lines = len({number for number, _ in mistakes})
        raise ConfigurationError(place, f"{lines} bad line{'s' * (lines > 1)}{list_lines(mistakes)}", ACCEPTED, remedy)
    if not rows:
        raise ConfigurationError(place, "no rows", ACCEPTED)
    return rows


def normalised(text: str) -> str:
    """`text` in Unicode's composed form (NFC), line ends as LF, no white space around it; inside nothing is lost."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def canonical_lines(rows: Iterable[tuple[str, str]]) -> str:
    """(prompt, response) pairs as JSON lines: the same pairs always give the same text."""
    return "".join(
        json.dumps({"prompt": prompt, "response": response}, ensure_ascii=False) + "\n" for prompt, response in rows
    )


def list_lines(notes: Sequence[tuple[int, str]]) -> str:
    """(line, note) pairs as an indented list, the first few of them, and how many there are beyond."""
    shown = "".join(f"\n  line {line}: {note}" for line, note in notes[:SHOWN])
    return shown + (f"\n  and {len(notes) - SHOWN} more" if len(notes) > SHOWN else "")


def _read_line(line: bytes) -> tuple[dict[str, str], list[str]]:
    """The normalised fields of one line and what is wrong with it."""
    try:
        pairs = json.loads(line.decode("utf-8"), object_pairs_hook=_Pairs)
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})"]
    except json.JSONDecodeError as error:
        return {}, [f"not JSON ({error.msg}, column {error.colno})"]
    except (ValueError, RecursionError) as error:  # an endless number, endless nesting
        return {}, [f"not JSON that can be read ({error})"]
    if not isinstance(pairs, _Pairs):
        return {}, [f"{_json_type(pairs)} instead of an object"]
    names = [name for name, _ in pairs]
    mistakes = [f"unknown field {name!r}, accepted are prompt and response" for name in names if name not in FIELDS]
    mistakes += [f"{name} is there twice" for name in FIELDS if names.count(name) > 1]
    values = dict(pairs)
    fields: dict[str, str] = {}
    for name in FIELDS:
        if name not in values:
            mistakes.append(f"{name} is missing")
        elif mistake := _text_mistake(values[name]):
            mistakes.append(f"{name} is {mistake}")
        else:
            fields[name] = normalised(values[name])
    return fields, mistakes


def _text_mistake(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{_json_type(value)} instead of text"
    if not normalised(value):
        return "empty"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "broken text (half of a surrogate pair)"
    return None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its fields as written, so that one written twice is seen."""


def _json_type(value: Any) -> str:
    if isinstance(value, _Pairs):
        return "an object"
    names = {type(None): "null", bool: "a truth value", list: "a list", str: "text"}
    return names.get(type(value), "a number")
