"""registered_model: an onnx_model whose report meets the gates, as a version in a registry.

Recipe: evaluate the gates on report.json; where all hold, write the model card and what is to be registered.
Registering itself is `publish`: it happens after building, reusing or restoring alike, and at most once a content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.experiment import RegisteredModelSpec
from assets.gates import GateError, GateResult, evaluate_gates, failed_gates
from assets.stage import Attempt, Facts, Stage
from resources.errors import StageError
from resources.registry.registry import Registry, Version
from resources.store.digests import FileDigests

CARD = "model_card.md"
REGISTRATION = "registration.json"
REPORT = "report.json"
CARD_SECTIONS = ("quality", "parity", "speed", "size", "rows")


class RegisteredModel(Stage):
    """A version of the onnx_model in the registry, if its report meets the gates."""

    name = "registered_model"
    made_from = ("onnx_model", "eval_report")
    gate_inputs = ("eval_report",)
    heavy = False
    registers = True

    def spec(self) -> RegisteredModelSpec:
        return self.experiment.registered_model

    def failed_gates(self, opened: Mapping[str, Path]) -> list[GateResult]:
        return failed_gates(_read_report(opened["eval_report"]), self.spec().gates)

    def produce(self, attempt: Attempt) -> None:
        """model_card.md and registration.json: name, digests of what it is made from, gates, tags."""
        report = _read_report(attempt.inputs["eval_report"])
        gates = evaluate_gates(report, self.spec().gates)
        if failed := [gate for gate in gates.values() if not gate.passed]:
            raise GateError(failed)
        digests = FileDigests(attempt.scratch / "digests.sqlite")
        registration = {
            "name": self.spec().name,
            "made_from": {name: digests.folder(attempt.inputs[name]) for name in self.made_from},
            "gates": [
                {"gate": gate.name, "measured": gate.measured, "threshold": gate.threshold} for gate in gates.values()
            ],
            "tags": self.spec().tags,
        }
        text = json.dumps(registration, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        (attempt.folder / REGISTRATION).write_text(text, encoding="utf-8")
        (attempt.folder / CARD).write_text(model_card(registration, report), encoding="utf-8")

    def facts(self, folder: Path) -> Facts:
        registration = _read_registration(folder)
        return Facts(
            numbers={f"{row['gate']} measured": row["measured"] for row in registration["gates"]},
            tables={"gates": registration["gates"]},
            texts={"model card": (folder / CARD).read_text(encoding="utf-8")},
        )

    def publish(self, folder: Path, inputs: Mapping[str, str], registry: Registry) -> Version:
        """The version that holds this onnx_model, registered where the registry does not have it yet."""
        registration = _read_registration(folder)
        made_from = registration["made_from"]
        if any(made_from[name] != inputs[name] for name in self.made_from):
            raise StageError(self.name, f"the artifact is made from {made_from}, not from {dict(inputs)}")
        # Lineage comes last: no label of the experiment can stand in its place.
        tags = {**registration["tags"], "experiment": self.experiment.name, **made_from}
        tags |= {row["gate"]: f"{row['measured']:.6g}" for row in registration["gates"]}
        card = (folder / CARD).read_text(encoding="utf-8")
        return registry.register(registration["name"], made_from["onnx_model"], tags, card)

    def is_published(self, inputs: Mapping[str, str], registry: Registry) -> bool:
        return registry.find(self.spec().name, inputs["onnx_model"]) is not None


def model_card(registration: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The model card, markdown: gates, what it is made from, every number of the report."""
    lines = [f"# {registration['name']}", "", "An ONNX Runtime GenAI folder with LoRA adapters.", ""]
    lines += ["## Gates", "", "| gate | measured | threshold |", "|---|---|---|"]
    lines += [f"| {row['gate']} | {row['measured']:.6g} | {row['threshold']:.6g} |" for row in registration["gates"]]
    lines += ["", "## Made from", "", "| artifact | data version |", "|---|---|"]
    lines += [f"| {name} | `{digest}` |" for name, digest in registration["made_from"].items()]
    for section in CARD_SECTIONS:
        numbers = _numbers(report.get(section), "")
        if numbers:
            lines += ["", f"## {section.capitalize()}", "", "| figure | value |", "|---|---|"]
            lines += [f"| {name.replace('_', ' ')} | {value:.6g} |" for name, value in numbers]
    return "\n".join(lines) + "\n"


def _numbers(value: Any, name: str) -> list[tuple[str, float]]:
    """(name, number) for every number below `value`, in its order."""
    if isinstance(value, Mapping):
        return [pair for inner, item in value.items() for pair in _numbers(item, f"{name} {inner}".strip())]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [(name, value)]
    return []


def _read_report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPORT).read_text(encoding="utf-8"))


def _read_registration(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REGISTRATION).read_text(encoding="utf-8"))
