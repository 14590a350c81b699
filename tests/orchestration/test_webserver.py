"""The real webserver and its GraphQL: the same artifacts as press run, with metadata; one asset alone, too."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.history import dagster_home
from tests.project import Project

STAGES = ["dataset", "awq_model", "lora_adapter", "onnx_model", "eval_report", "registered_model"]
WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"

LAUNCH = """mutation Launch($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
NODES = """query Nodes($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) { assetKey { path } staleStatus
  assetMaterializations(limit: 1) { runId tags { key value }
    metadataEntries { __typename label ... on FloatMetadataEntry { floatValue }
      ... on IntMetadataEntry { intValue } } } } }"""


class Webserver:
    """A running dagster-webserver on a free port of 127.0.0.1."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            document = json.load(answer)
        assert "errors" not in document, document["errors"]
        return document["data"]

    def materialize(self, *stages: str) -> str:
        """Launch a run of `stages` and wait for its end; returns its status."""
        selector = {
            "repositoryLocationName": "olive-press", "repositoryName": "__repository__", "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["tiny", stage]} for stage in stages], "assetCheckSelection": [],
        }  # fmt: skip
        launched = self.ask(LAUNCH, params={"selector": selector, "mode": "default"})["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            status = self.ask(RUN, id=launched["run"]["runId"])["runOrError"]["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                return status
            time.sleep(0.5)
        raise AssertionError("the run did not end")

    def nodes(self) -> dict[str, dict[str, Any]]:
        keys = [{"path": ["tiny", stage]} for stage in STAGES]
        return {node["assetKey"]["path"][1]: node for node in self.ask(NODES, keys=keys)["assetNodes"]}

    def data_versions(self) -> dict[str, str]:
        """Stage → data version of its latest materialization."""
        return {
            stage: {tag["key"]: tag["value"] for tag in node["assetMaterializations"][0]["tags"]}[
                "dagster/data_version"
            ]
            for stage, node in self.nodes().items()
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_webserver(project: Project, folder: Path) -> tuple[subprocess.Popen[bytes], Webserver]:
    """A webserver started from `folder`, which answers."""
    port = free_port()
    environment = project.environment | {"DAGSTER_HOME": str(dagster_home(project.home)), "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-w", str(WORKSPACE)]
    log = (folder / "webserver.log").open("wb")
    process = subprocess.Popen(
        [*command, "-h", "127.0.0.1", "-p", str(port)], env=environment, cwd=folder, stdout=log, stderr=log
    )
    server = Webserver(f"http://127.0.0.1:{port}/graphql")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "webserver.log").read_text()
        try:
            server.ask("{ version }")
            return process, server
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError("the webserver did not answer")


@pytest.fixture
def webserver(project, tmp_path) -> Iterator[Webserver]:
    process, server = start_webserver(project, tmp_path)
    yield server
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)


def test_all_six_from_the_webserver_give_what_press_run_gave(project, webserver):
    before = webserver.data_versions()
    assert webserver.materialize(*STAGES) == "SUCCESS"
    assert webserver.data_versions() == before
    nodes = webserver.nodes()
    assert {stage: node["staleStatus"] for stage, node in nodes.items()} == dict.fromkeys(STAGES, "FRESH")
    assert set(project.run().values()) == {"fresh"}
    for stage, node in nodes.items():
        entries = {entry["label"]: entry for entry in node["assetMaterializations"][0]["metadataEntries"]}
        assert {"outcome", "inputs", "key", "seconds"} <= entries.keys()
        numbers = [e for e in entries.values() if e["__typename"] in ("FloatMetadataEntry", "IntMetadataEntry")]
        assert len(numbers) > 3 or stage == "registered_model", stage
    kinds = {e["__typename"] for e in nodes["lora_adapter"]["assetMaterializations"][0]["metadataEntries"]}
    assert {"TableMetadataEntry", "MarkdownMetadataEntry"} <= kinds


def test_changed_stage_alone_matches_press_run(project, webserver):
    project.edit("lora_adapter", seed=1)
    assert webserver.materialize("lora_adapter", "onnx_model", "eval_report", "registered_model") == "SUCCESS"
    assert set(project.run().values()) == {"fresh"}


def test_stage_without_its_inputs_fails_with_what_to_do(project, tmp_path, tiny_llama):
    from tests.project import create_project

    empty = create_project(tmp_path / "empty", tiny_llama)
    process, server = start_webserver(empty, tmp_path)
    try:
        assert server.materialize("lora_adapter") == "FAILURE"
        assert server.materialize("dataset") == "SUCCESS"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
