"""Asset checks: each gate of an experiment as a check on its report, so that the UI shows which one fails.

They inform; what holds a model back is registered_model's own look at the gates, because Dagster's blocking
checks hold within one run only.
"""

import json

import dagster as dg

from assets.experiment import Experiment
from assets.gates import evaluate_gates
from resources.store.store import Store


def gate_checks(experiment: Experiment) -> list[dg.AssetChecksDefinition]:
    """One check for each gate of `experiment`, on its eval_report."""
    return [_gate_check(experiment, gate) for gate in type(experiment.registered_model.gates).model_fields]


def _gate_check(experiment: Experiment, gate: str) -> dg.AssetChecksDefinition:
    key = dg.AssetKey([experiment.name, "eval_report"])

    @dg.asset_check(asset=key, name=gate, required_resource_keys={"store"})
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        store: Store = context.resources.store
        event = context.instance.get_latest_materialization_event(key)
        assert event is not None and event.asset_materialization is not None  # a check runs after its asset
        digest = (event.asset_materialization.tags or {})["dagster/data_version"]
        report = json.loads((store.open(digest) / "report.json").read_text(encoding="utf-8"))
        result = evaluate_gates(report, experiment.registered_model.gates)[gate]
        return dg.AssetCheckResult(
            passed=result.passed, metadata={"measured": str(result.measured), "threshold": result.threshold}
        )

    return check
