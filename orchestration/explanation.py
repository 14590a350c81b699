"""Why a stage is not fresh: old and new value of every ingredient that changed, and what is behind a digest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.stage import Recipe, Source
from resources.store.keys import Key
from resources.store.store import Entry, Store

SHOWN_LINES = 3
LONGEST_TEXT = 50_000_000  # bytes; a diff of more would cost more than it tells


@dataclass(frozen=True)
class Reason:
    """One ingredient that differs from what the recorded materialization was made of.

    diff: where `was` and `now` are digests, what changed behind them in a few lines.
    """

    ingredient: str
    was: Any
    now: Any
    diff: str | None = None

    def as_json(self) -> dict[str, Any]:
        fields = {"ingredient": self.ingredient, "was": self.was, "now": self.now}
        return fields if self.diff is None else fields | {"diff": self.diff}


def changed_ingredients(
    recipe: Recipe, now: Mapping[str, Any], before: Entry, store: Store, sources: Mapping[str, Source]
) -> tuple[Reason, ...]:
    """A reason for every ingredient of `recipe` that is not as it was in `before`."""
    reasons: list[Reason] = []
    for name, was in {**dict.fromkeys(now), **before.ingredients}.items():
        if name not in before.ingredients:
            was = None
        if json.dumps(was) == json.dumps(now.get(name)):
            continue
        source = sources.get(name.removeprefix("input."))
        if name == "code":
            reasons.append(Reason(name, was, now[name], _changed_modules(recipe, before)))
        elif source is not None and isinstance(was, str):
            reasons += _changed_source(source, name, was, now[name], store)
        else:
            reasons += _changed_values(name, was, now.get(name))
    return tuple(reasons)


def _changed_values(name: str, was: Any, now: Any) -> list[Reason]:
    """One reason for each value inside a mapping, so that a changed threshold is told without the others."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            reason
            for inner in {**was, **now}
            if was.get(inner) != now.get(inner)
            for reason in _changed_values(f"{name}.{inner}", was.get(inner), now.get(inner))
        ]
    return [Reason(name, was, now)]


def _changed_source(source: Source, name: str, was: str, now: str, store: Store) -> list[Reason]:
    """The data version of a source stands for ingredients of its own: those that changed follow it."""
    before = store.entry(was)
    if before is None:
        return [Reason(name, was, now)]
    ingredients = source.source_key(store.digests).ingredients
    inner = changed_ingredients(source, ingredients, before, store, {})
    is_other = before.ingredients["input.external"] != ingredients["input.external"]
    diff = _changed_text(source, before, store) if is_other else None
    behind = [
        Reason(f"{source.name}.{reason.ingredient.removeprefix('input.')}", reason.was, reason.now, reason.diff)
        for reason in inner
    ]
    return [Reason(name, was, now, diff), *behind]


def _changed_text(source: Source, before: Entry, store: Store) -> str | None:
    """What became of the lines of a text source since `before`; None for a source that is no text, or a lost one."""
    now = source.text_file()
    if now is None or store.find(Key(before.ingredients)) is None:
        return None
    was = next(store.open(before.digest).iterdir())
    if max(was.stat().st_size, now.stat().st_size) > LONGEST_TEXT:
        return None
    return changed_lines(_lines(was), _lines(now))


def _lines(file: Path) -> list[str]:
    return file.read_bytes().decode("utf-8", "replace").split("\n")


def changed_lines(was: list[str], now: list[str]) -> str:
    """The lines removed and added, the first few of each, and how many; what only moved is said so."""
    before, after = Counter(was), Counter(now)
    parts: list[str] = []
    for mark, lines, missing in (("-", was, before - after), ("+", now, after - before)):
        changed = [line for line in dict.fromkeys(lines) if line in missing]
        parts += [f"{mark} {_ends(line)}" for line in changed[:SHOWN_LINES]]
        if len(changed) > SHOWN_LINES:
            parts.append(f"{mark} … {missing.total()} lines in all")
    if not parts:
        return "the same lines in another order"
    if [line.rstrip() for line in was if line.strip()] == [line.rstrip() for line in now if line.strip()]:
        return "the same lines with other line endings or blank lines"
    return "\n".join(parts)


def _ends(line: str, length: int = 160) -> str:
    return line if len(line) <= length else f"{line[: length // 2]} … {line[-length // 2 :]}"


def _changed_modules(recipe: Recipe, before: Entry) -> str | None:
    """The modules behind the code fingerprint that changed, came or went."""
    was, now = before.provenance.get("modules"), recipe.modules()
    if not isinstance(was, dict):
        return None
    told = [f"{name} changed" for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
    told += [f"{name} is new" for name in sorted(now.keys() - was.keys())]
    told += [f"{name} is gone" for name in sorted(was.keys() - now.keys())]
    return "\n".join(told) or None
