"""press plan: statuses, reasons with old and new values, expected seconds."""

from __future__ import annotations

import subprocess
import sys

from tests.project import tiny_rows


def test_fresh_project_has_no_reasons(project):
    for stage in project.plan().values():
        assert (stage["status"], stage["reasons"], stage["expected_seconds"]) == ("fresh", [], 0.0)


def test_changed_parameter_is_named_with_old_and_new_value(project):
    project.edit("lora_adapter", r=8)
    planned = project.plan()
    assert planned["lora_adapter"]["status"] == "run"
    assert planned["lora_adapter"]["reasons"] == [{"ingredient": "spec.r", "was": 4, "now": 8}]
    assert planned["lora_adapter"]["expected_seconds"] > 0
    assert [planned[name]["status"] for name in ("dataset", "awq_model")] == ["fresh", "fresh"]
    assert [planned[name]["status"] for name in ("onnx_model", "eval_report", "registered_model")] == ["maybe"] * 3


def test_changed_data_reaches_everything_but_awq_model(project):
    project.write_rows(tiny_rows()[:-1])
    planned = project.plan()
    assert planned["dataset"]["reasons"][0]["ingredient"] == "input.source_data"
    assert {name: stage["status"] for name, stage in planned.items()} == {
        "dataset": "run", "awq_model": "fresh", "lora_adapter": "maybe",
        "onnx_model": "maybe", "eval_report": "maybe", "registered_model": "maybe",
    }  # fmt: skip


def test_known_key_is_restorable(project):
    project.edit("dataset", eval_fraction=0.3)
    assert project.press("run", "tiny", "--select", "dataset").returncode == 0
    project.edit("dataset", eval_fraction=0.15)
    planned = project.plan()
    assert planned["dataset"]["status"] == "restore"
    assert planned["lora_adapter"]["status"] in ("fresh", "restore")


def test_missing_data_file_is_named(project):
    project.data.unlink()
    done = project.press("plan", "tiny", "--json")
    assert done.returncode == 2
    assert "tiny.jsonl" in done.stderr and done.stdout == ""


def test_lost_artifact_is_planned_again(project):
    for blob in (project.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b'{"prompt"'):
            blob.unlink()
    planned = project.plan()
    assert planned["dataset"]["status"] == "run"
    assert planned["awq_model"]["status"] == "fresh"


def test_planning_imports_neither_torch_nor_olive(project):
    code = (
        "import sys; sys.argv = ['press', 'plan', 'tiny', '--json']\n"
        "from orchestration.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'olive', 'transformers', 'onnxruntime', 'pandas'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
