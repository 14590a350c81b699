"""Gates: what an eval report must show before its model is registered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from assets.experiment import GatesSpec
from resources.errors import StageError

RETRAIN = "train longer or on more rows (lora_adapter.steps, dataset.path)"
REBUILD = "build with a finer head or exact activations (onnx_model.head, onnx_model.accuracy_level)"
DISTRUST = "the graph does not compute what the AWQ weights and the adapter say; do not serve this model"


@dataclass(frozen=True)
class GateResult:
    """One gate against one report; `measured` is None where the report lacks the figure or it is not finite."""

    name: str
    measured: float | None
    threshold: float
    passed: bool
    remedy: str

    def __str__(self) -> str:
        bound, word = self.name.split("_", 1)
        found = "not measured" if self.measured is None else f"{self.measured:.6g}"
        limit = f"at {'least' if bound == 'min' else 'most'} {self.threshold:.6g}"
        return f"{self.name}: {word.replace('_', ' ')} {found}, accepted {limit}; {self.remedy}"


class GateError(StageError):
    """A report failed gates: each with what was measured, what is accepted and what to do."""

    def __init__(self, failed: Iterable[GateResult]) -> None:
        self.failed = tuple(failed)
        lines = "".join(f"\n  {result}" for result in self.failed)
        remedy = "\nOr move a threshold in registered_model.gates; the evaluation is not repeated"
        super().__init__("registered_model", f"{len(self.failed)} of {len(GATES)} gates failed{lines}{remedy}")


# Gate → the report's figures that it judges (the worst one counts), and what to do when it fails.
GATES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "min_perplexity_drop": (("quality.perplexity_drop",), RETRAIN),
    "min_agreement": (("parity.shipped.agreement", "parity.shipped_base.agreement"), REBUILD),
    "min_exact_agreement": (("parity.exact.agreement", "parity.exact_base.agreement"), DISTRUST),
    "max_kl_nats": (("parity.shipped.kl_nats", "parity.shipped_base.kl_nats"), REBUILD),
}


def evaluate_gates(report: Mapping[str, Any], gates: GatesSpec) -> dict[str, GateResult]:
    """Gate name → its result on `report`; a missing figure or one that is not finite fails."""
    return {name: _evaluate(name, report, getattr(gates, name)) for name in type(gates).model_fields}


def failed_gates(report: Mapping[str, Any], gates: GatesSpec) -> list[GateResult]:
    """The gates that `report` does not meet."""
    return [result for result in evaluate_gates(report, gates).values() if not result.passed]


def _evaluate(name: str, report: Mapping[str, Any], threshold: float) -> GateResult:
    paths, remedy = GATES[name]
    figures = [figure for path in paths if (figure := _figure(report, path)) is not None]
    if len(figures) < len(paths):
        return GateResult(name, None, threshold, False, remedy)
    lowest_counts = name.startswith("min_")
    measured = min(figures) if lowest_counts else max(figures)
    passed = measured >= threshold if lowest_counts else measured <= threshold
    return GateResult(name, measured, threshold, passed, remedy)


def _figure(report: Mapping[str, Any], path: str) -> float | None:
    value: Any = report
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
