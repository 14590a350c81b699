"""The mutation table: every spec field, and the recipes whose key it enters. A field without a row fails the suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assets.experiment import Experiment, Spec
from assets.recipes import SOURCES, STAGES, open_recipe
from resources.store.digests import FileDigests

# field → (another value, the recipes whose own key changes with it)
ROWS: dict[str, tuple[Any, set[str]]] = {
    "base_model.package": (None, {"base_model"}),
    "base_model.file": (None, {"base_model"}),
    "base_model.folder": ("other", {"base_model"}),
    "base_model.huggingface": (None, {"base_model"}),
    "base_model.revision": (None, {"base_model"}),
    "base_model.trust_remote_code": (True, {"base_model"}),
    "dataset.path": ("data/copy.jsonl", set()),
    "dataset.eval_fraction": (0.2, {"dataset"}),
    "dataset.seed": (1, {"dataset"}),
    "dataset.max_damaged": (1, {"dataset"}),
    "awq_model.bits": (8, {"awq_model"}),
    "awq_model.group_size": (64, {"awq_model"}),
    "awq_model.symmetric": (True, {"awq_model"}),
    "awq_model.calibration_text": ("text.txt", {"calibration_text"}),
    "awq_model.samples": (8, {"awq_model"}),
    "awq_model.tokens": (256, {"awq_model"}),
    "awq_model.ratios": (10, {"awq_model"}),
    "awq_model.clip": (False, {"awq_model"}),
    "awq_model.measure_samples": (1, {"awq_model"}),
    "awq_model.seed": (1, {"awq_model"}),
    "lora_adapter.r": (8, {"lora_adapter"}),
    "lora_adapter.alpha": (16.0, {"lora_adapter"}),
    "lora_adapter.dropout": (0.1, {"lora_adapter"}),
    "lora_adapter.target_modules": (("q_proj",), {"lora_adapter"}),
    "lora_adapter.steps": (10, {"lora_adapter"}),
    "lora_adapter.batch_size": (4, {"lora_adapter"}),
    "lora_adapter.learning_rate": (1e-3, {"lora_adapter"}),
    "lora_adapter.warmup_steps": (0, {"lora_adapter"}),
    "lora_adapter.max_tokens": (128, {"lora_adapter"}),
    "lora_adapter.checkpoint_steps": (5, set()),
    "lora_adapter.seed": (1, {"lora_adapter"}),
    "onnx_model.adapter": ("other", {"onnx_model"}),
    "onnx_model.provider": ("cuda", {"onnx_graph", "onnx_model"}),
    "onnx_model.head": ("float", {"onnx_graph", "onnx_model"}),
    "onnx_model.accuracy_level": (1, {"onnx_graph", "onnx_model"}),
    "eval_report.rows": (3, {"eval_report"}),
    "eval_report.generated_rows": (3, {"eval_report"}),
    "eval_report.max_new_tokens": (3, {"eval_report"}),
    "eval_report.parity_rows": (3, {"eval_report"}),
    "eval_report.seed": (3, {"eval_report"}),
    "registered_model.name": ("other", {"registered_model"}),
    "registered_model.registry": (None, {"registered_model"}),
    "registered_model.gates": ({"min_agreement": 0.5}, {"registered_model"}),
    "registered_model.tags": ({"team": "a"}, {"registered_model"}),
    "compute.device": ("cpu", set()),
}
SECTIONS = {name: field.annotation for name, field in Experiment.model_fields.items() if name not in ("name", "root")}


def _document(root: Path, base_model: Path) -> dict[str, Any]:
    (root / "data").mkdir(exist_ok=True)
    for name in ("data/rows.jsonl", "data/copy.jsonl"):
        (root / name).write_text('{"prompt": "a", "response": "b"}\n')
    (root / "text.txt").write_text("some words\n")
    return {
        "base_model": {"folder": str(base_model)},
        "dataset": {"path": "data/rows.jsonl"},
        "registered_model": {"name": "m"},
    }


def _keys(root: Path, document: dict[str, Any], name: str = "mine") -> dict[str, str]:
    """Recipe name → the id of its key less inputs; for sources, with what they are now."""
    experiment = Experiment.model_validate({"name": name, "root": root} | document, strict=False)
    digests = FileDigests(root / "digests")
    parts = [part.name for stage in STAGES for part in stage.parts]
    keys = {recipe: open_recipe(experiment, recipe).code_version() for recipe in [s.name for s in STAGES] + parts}
    return keys | {source.name: source(experiment).source_key(digests).id for source in SOURCES}


def test_every_spec_field_has_a_row():
    fields = {f"{section}.{field}" for section, spec in SECTIONS.items() for field in _fields(spec)}
    assert fields == ROWS.keys()


def _fields(spec: Any) -> list[str]:
    assert issubclass(spec, Spec)
    return list(spec.model_fields)


@pytest.mark.parametrize("field", [field for field, (value, _) in ROWS.items() if value is not None])
def test_a_changed_field_makes_exactly_these_recipes_stale(field, tmp_path, tiny_llama, tiny_qwen2):
    value, expected = ROWS[field]
    document = _document(tmp_path, tiny_llama)
    before = _keys(tmp_path, document)
    section, name = field.split(".")
    changed = document | {
        section: document.get(section, {}) | {name: str(tiny_qwen2) if value == "other" and name == "folder" else value}
    }
    after = _keys(tmp_path, changed)
    assert {recipe for recipe in before if before[recipe] != after[recipe]} == expected


def test_names_and_places_make_nothing_stale(tmp_path, tiny_llama):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert _keys(here, _document(here, tiny_llama)) == _keys(there, _document(there, tiny_llama), name="renamed")


def test_written_defaults_are_the_same_as_absent_ones(tmp_path, tiny_llama):
    document = _document(tmp_path, tiny_llama)
    assert _keys(tmp_path, document) == _keys(tmp_path, document | {"lora_adapter": {"r": 16, "alpha": 32}})
