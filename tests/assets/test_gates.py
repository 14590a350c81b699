"""Gates: which reports pass, and what is said about those that do not."""

from __future__ import annotations

import copy

import pytest

from assets.experiment import GatesSpec
from assets.gates import GATES, GateError, evaluate_gates, failed_gates

REPORT = {
    "quality": {"perplexity_drop": 0.5},
    "parity": {
        "exact": {"agreement": 1.0},
        "exact_base": {"agreement": 1.0},
        "shipped": {"agreement": 0.95, "kl_nats": 0.004},
        "shipped_base": {"agreement": 0.96, "kl_nats": 0.005},
    },
}


def report_with(path, value):
    report = copy.deepcopy(REPORT)
    place = report
    *parents, last = path.split(".")
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return report


def failed_names(report, **gates):
    return [gate.name for gate in failed_gates(report, GatesSpec(**gates))]


def test_a_report_that_meets_every_gate():
    assert failed_names(REPORT) == []
    assert {name: result.measured for name, result in evaluate_gates(REPORT, GatesSpec()).items()} == {
        "min_perplexity_drop": 0.5,
        "min_agreement": 0.95,
        "min_exact_agreement": 1.0,
        "max_kl_nats": 0.005,
    }


def test_every_gate_of_the_spec_is_evaluated():
    assert GATES.keys() == GatesSpec.model_fields.keys()


FIGURES = [(path, gate) for gate, (paths, _) in GATES.items() for path in paths]


@pytest.mark.parametrize(("path", "gate"), FIGURES)
@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf"), "0.99", True])
def test_a_figure_that_is_missing_or_no_number_fails(path, gate, value):
    assert failed_names(report_with(path, value)) == [gate]


@pytest.mark.parametrize(("path", "gate"), FIGURES)
def test_the_worst_of_the_figures_counts(path, gate):
    assert failed_names(report_with(path, 0.5 if gate.startswith("max") else 0.1)) == [gate]


def test_a_figure_on_its_threshold_passes():
    assert failed_names(REPORT, min_perplexity_drop=0.5, min_agreement=0.95, max_kl_nats=0.005) == []


def test_an_empty_report_fails_every_gate():
    assert failed_names({}) == list(GATES)
    assert failed_names({"quality": 3, "parity": None}) == list(GATES)


def test_the_error_names_each_gate_with_figures_and_remedy():
    report = report_with("quality.perplexity_drop", 0.1)
    del report["parity"]["shipped"]["kl_nats"]
    message = str(GateError(failed_gates(report, GatesSpec())))
    assert "2 of 4 gates failed" in message
    assert "min_perplexity_drop: perplexity drop 0.1, accepted at least 0.2; train longer" in message
    assert "max_kl_nats: kl nats not measured, accepted at most 0.01" in message
    assert "min_agreement" not in message
