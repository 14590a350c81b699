"""press: --json contracts, exit codes, wrong requests."""

from __future__ import annotations

import json


def test_plan_and_run_documents(project):
    planned = json.loads(project.press("plan", "tiny", "--json").stdout)
    assert planned["experiment"] == "tiny"
    assert set(planned["stages"][0]) >= {"stage", "status", "reasons", "expected_seconds"}
    ran = json.loads(project.press("run", "tiny", "--json").stdout)
    assert ran["experiment"] == "tiny" and ran["seconds"] >= 0
    assert set(ran["stages"][0]) >= {"stage", "outcome", "seconds", "data_version"}


def test_standard_output_holds_one_document_when_stages_run(project):
    project.edit("eval_report", seed=5)
    done = project.press("run", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    json.loads(done.stdout)


def test_unknown_experiment_names_the_known_ones(project):
    done = project.press("run", "no-such")
    assert done.returncode == 2
    assert "no-such.yaml" in done.stderr and "tiny" in done.stderr and "Traceback" not in done.stderr


def test_unknown_key_names_file_key_and_accepted_keys(project):
    project.edit("lora_adapter", rank=4)
    done = project.press("plan", "tiny")
    assert done.returncode == 2
    assert "tiny.yaml" in done.stderr and "lora_adapter.rank" in done.stderr and "learning_rate" in done.stderr


def test_unknown_command_is_a_request_error(project):
    assert project.press("plum").returncode == 2


def test_store_ls_and_verify(project):
    listed = json.loads(project.press("store", "ls", "--json").stdout)["artifacts"]
    assert {"dataset", "awq_model", "onnx_graph"} <= {row["recipe"] for row in listed}
    verified = json.loads(project.press("store", "verify", "--json").stdout)
    assert verified["damaged"] == [] and verified["artifacts"] >= 6 and verified["blobs"] > 10 and verified["bytes"] > 0


def test_store_verify_names_damage_and_exits_1(project):
    blob = next(path for path in sorted((project.home / "store" / "blobs").rglob("*")) if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"x" + blob.read_bytes()[1:] + b"y")
    done = project.press("store", "verify", "--json")
    assert done.returncode == 1
    assert blob.name in json.dumps(json.loads(done.stdout)["damaged"])


def test_chat_answers_with_and_without_the_adapter(project):
    with_adapter = json.loads(
        project.press("chat", "tiny", "What should I see?", "--max-new-tokens", "6", "--json").stdout
    )
    assert with_adapter["adapter"] == "tiny" and with_adapter["tokens"] > 0
    without = json.loads(project.press("chat", "tiny", "Hi", "--no-adapter", "--max-new-tokens", "6", "--json").stdout)
    assert without["adapter"] is None


def test_chat_with_an_unknown_adapter_names_the_known_ones(project):
    done = project.press("chat", "tiny", "Hi", "--adapter", "paris")
    assert done.returncode == 2
    assert "paris" in done.stderr and "tiny" in done.stderr


def test_chat_before_a_run_says_what_to_do(project, tmp_path, tiny_llama):
    from tests.project import create_project

    done = create_project(tmp_path / "empty", tiny_llama).press("chat", "tiny", "Hi")
    assert done.returncode == 2
    assert "press run tiny" in done.stderr
