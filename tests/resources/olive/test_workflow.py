"""Running Olive workflows: outputs, failures and what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resources.errors import ConfigurationError, StageError
from resources.olive.workflow import run_workflow
from resources.progress import RecordedProgress

OWN_PASSES = {"ReportingPass": "tests.resources.olive.reporting_pass"}


def config(base: Path, olive_pass: dict) -> dict:
    return {
        "workflow_id": "some_stage",
        "input_model": {"type": "HfModel", "model_path": str(base)},
        "passes": {"only": olive_pass},
    }


def test_leaves_the_model_and_nothing_else(tiny_llama, tmp_path):
    run_workflow(config(tiny_llama, {"type": "Rtn", "group_size": 32}), tmp_path / "out")
    names = {item.name for item in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not {name for name in names if name.startswith(".") or "footprint" in name or name == "model_config.json"}
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["quantization_config"]["quant_method"] == "olive"
    assert not [file for file in (tmp_path / "out").iterdir() if str(tmp_path).encode() in file.read_bytes()]


def test_a_changed_model_at_the_same_path_is_not_taken_for_the_old_one(tmp_path):
    from tests.tiny_models import save_tiny_model

    for seed, name in ((0, "first"), (1, "second")):
        base = save_tiny_model("llama", tmp_path / "base", seed)
        run_workflow(config(base, {"type": "Rtn", "group_size": 32}), tmp_path / name)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first != second


def test_a_failing_pass_gives_olives_message_and_leaves_no_model(tiny_llama, tmp_path):
    with pytest.raises(StageError, match=r"some_stage: .*in_features 64 must be divisible by group_size 128"):
        run_workflow(config(tiny_llama, {"type": "Rtn", "group_size": 128}), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_misspelt_parameter_is_an_error(tiny_llama, tmp_path):
    with pytest.raises(StageError, match="no_such_pass"):
        run_workflow(config(tiny_llama, {"type": "no_such_pass"}), tmp_path / "out")


def test_our_pass_is_found_and_reports_progress(tiny_llama, tmp_path):
    progress = RecordedProgress()
    run_workflow(config(tiny_llama, {"type": "ReportingPass"}), tmp_path / "out", progress, OWN_PASSES)
    assert progress.steps == [("reporting", 1, 1)]


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ("disk", StageError, "some_stage: .*No space left on device"),
        ("configuration", ConfigurationError, "awq_model.group_size: found 48; accepted: 16, 32"),
    ],
)
def test_failures_that_olive_only_logs_are_raised(tiny_llama, tmp_path, failure, kind, message):
    with pytest.raises(kind, match=message):
        run_workflow(
            config(tiny_llama, {"type": "ReportingPass", "failure": failure}), tmp_path / "out", passes=OWN_PASSES
        )


def test_olive_prints_nothing_on_standard_output(tiny_llama, tmp_path, capfd):
    run_workflow(config(tiny_llama, {"type": "Rtn", "group_size": 32}), tmp_path / "out")
    assert capfd.readouterr().out == ""


LISTENING = """
import sys
sys.addaudithook(lambda event, arguments: print(event, arguments) if event in
                 ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") else None)
from pathlib import Path
from resources.olive.workflow import run_workflow
run_workflow({config!r}, Path({folder!r}))
"""


def test_nothing_is_sent_anywhere(tiny_llama, tmp_path):
    run_config = config(tiny_llama, {"type": "Rtn", "group_size": 32})
    code = LISTENING.format(config=run_config, folder=str(tmp_path / "out"))
    switches = ("OLIVE_DISABLE_TELEMETRY", "OTEL_SDK_DISABLED", "CI")  # as where nobody thought of them
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert done.stdout == ""
