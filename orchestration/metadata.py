"""What the Dagster UI shows of an artifact: inputs, outcome, numbers, tables, plots; in terms that need no Dagster."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assets.stage import Stage
from orchestration.kept_facts import KeptFacts
from orchestration.savings import Saving
from resources.registry.registry import Version
from resources.store.store import Entry


@dataclass(frozen=True)
class Markdown:
    """Text that the UI renders."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; columns: name → "string", "int" or "float"."""

    columns: Mapping[str, str]
    rows: list[dict[str, str | int | float | bool | None]]


Value = str | int | float | Markdown | Table


def metadata(
    stage: Stage,
    kept: KeptFacts,
    entry: Entry,
    inputs: Mapping[str, str],
    saving: Saving,
    version: Version | None = None,
) -> dict[str, Value]:
    """Metadata of one materialization, the same whether its artifact was computed or found, and what it registered."""
    facts = kept.facts(stage, entry.digest)
    ingredients = sorted(entry.ingredients.items())
    shown: dict[str, Value] = {
        "outcome": saving.outcome,
        "seconds": round(saving.seconds, 3),
        "seconds saved": round(float(saving.saved_seconds), 3),
        "bytes saved": saving.saved_bytes,
        "seconds to compute": round(entry.seconds, 3),
        "bytes": kept.bytes(entry.digest),
        "key": entry.key_id,
        "inputs": _table([{"input": name, "data version": version} for name, version in sorted(inputs.items())]),
        "ingredients": _table([{"ingredient": name, "value": json.dumps(value)} for name, value in ingredients]),
        **_ran_on(entry.provenance.get("ran_on")),
        **facts.numbers,
        **{name: _table(rows) for name, rows in facts.tables.items()},
    }
    if version:
        shown |= _registered(version)
    for name, png in facts.plots.items():
        shown[name] = Markdown(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
    return shown | {name: Markdown(text) for name, text in facts.texts.items()}


def _ran_on(told: Any) -> dict[str, Value]:
    """What the artifact was computed on; nothing of one whose maker did not tell."""
    if not isinstance(told, dict):
        return {}
    names = {"threads": "threads", "peak_memory": "peak memory bytes", "peak_gpu_memory": "peak GPU memory bytes"}
    shown: dict[str, Value] = {"device": str(told.get("device")), "processor": str(told.get("cpu"))}
    if "gpu" in told:
        memory = f"{told['gpu_memory'] / 1e9:.0f} GB"
        shown["GPU"] = f"{told['gpu']}, {memory}, driver {told['driver']}, compute capability {told['capability']}"
    return shown | {shown_as: told[name] for name, shown_as in names.items() if name in told}


def _registered(version: Version) -> dict[str, Value]:
    shown: dict[str, Value] = {
        "version": version.version,
        "registered at": version.registered_at,
        "tags": _table([{"tag": name, "value": value} for name, value in sorted(version.tags.items())]),
    }
    return shown | ({"page": Markdown(f"[{version.name}:{version.version}]({version.page})")} if version.page else {})


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    types = {name: _column_type([row.get(name) for row in rows]) for name in columns}
    return Table(types, [{name: _cell(row.get(name)) for name in columns} for row in rows])


def _column_type(values: list[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)
