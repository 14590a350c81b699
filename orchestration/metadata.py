"""What the Dagster UI shows of an artifact: inputs, outcome, numbers, tables and plots."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.stage import Stage
from orchestration.kept_facts import KeptFacts
from orchestration.savings import Saving
from resources.store.store import Entry


def metadata(
    stage: Stage, kept: KeptFacts, entry: Entry, inputs: Mapping[str, str], saving: Saving
) -> dict[str, dg.MetadataValue[Any]]:
    """Metadata of one materialization, the same whether its artifact was computed or found."""
    facts = kept.facts(stage, entry.digest)
    shown: dict[str, dg.MetadataValue[Any]] = {
        "outcome": dg.MetadataValue.text(saving.outcome),
        "seconds": dg.MetadataValue.float(round(saving.seconds, 3)),
        "seconds saved": dg.MetadataValue.float(round(saving.saved_seconds, 3)),
        "bytes saved": dg.MetadataValue.int(saving.saved_bytes),
        "seconds to compute": dg.MetadataValue.float(round(entry.seconds, 3)),
        "bytes": dg.MetadataValue.int(kept.bytes(entry.digest)),
        "key": dg.MetadataValue.text(entry.key_id),
        "inputs": _table([{"input": name, "data version": version} for name, version in sorted(inputs.items())]),
        "ingredients": _table(
            [{"ingredient": name, "value": json.dumps(value)} for name, value in sorted(entry.ingredients.items())]
        ),
    }
    for name, number in facts.numbers.items():
        shown[name] = dg.MetadataValue.int(number) if isinstance(number, int) else dg.MetadataValue.float(number)
    for name, rows in facts.tables.items():
        shown[name] = _table(rows)
    for name, png in facts.plots.items():
        shown[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
    for name, text in facts.texts.items():
        shown[name] = dg.MetadataValue.md(text)
    return shown


def _table(rows: list[dict[str, Any]]) -> dg.MetadataValue[Any]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    schema = dg.TableSchema([dg.TableColumn(name, _column_type([row.get(name) for row in rows])) for name in columns])
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in columns}) for row in rows]
    return dg.MetadataValue.table(records, schema)


def _column_type(values: list[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)
