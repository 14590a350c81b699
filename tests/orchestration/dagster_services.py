"""The real Dagster services over a project: webserver, daemon and code server, asked through GraphQL as the UI asks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestration.history import dagster_home
from tests.project import Project, heed_ctrl_c

STAGES = ("dataset", "awq_model", "lora_adapter", "onnx_model", "eval_report", "registered_model")
WORKSPACE = Path(__file__).resolve().parents[2] / "workspace.yaml"
# The same definitions with sensors that look every second instead of every half minute.
QUICK_WORKSPACE = Path(__file__).resolve().parent / "quick_workspace.yaml"
REPOSITORY = {"repositoryLocationName": "olive-press", "repositoryName": "__repository__"}
DATA_VERSION, OUTCOME = "dagster/data_version", "press/outcome"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")
# Goes straight to 127.0.0.1, whatever proxy the environment named when this process first opened a page.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

LAUNCH = """mutation Launch($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
BACKFILL = """mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query Status($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status error { message } runs { runId } } } }"""
RUN = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
EVENTS = """query Events($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { __typename
  ... on MessageEvent { message timestamp } ... on MaterializationEvent { assetKey { path } tags { key value } }
  ... on ExecutionStepFailureEvent { failureMetadata { description } } } } } }"""
RUNS = """query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs {
  results { runId status tags { key value } } } } }"""
NODES = """query Nodes($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) { assetKey { path } staleStatus
  assetMaterializations(limit: 1) { runId tags { key value }
    metadataEntries { __typename label ... on TextMetadataEntry { text } ... on FloatMetadataEntry { floatValue }
      ... on IntMetadataEntry { intValue } } } } }"""
OBSERVED = """query Observed($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) {
  assetObservations(limit: 1) { tags { key value } } } }"""
RELOAD = """mutation Reload($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
  __typename ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } } } }"""
START = """mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
  __typename ... on Sensor { sensorState { id selectorId status } } ... on PythonError { message } } }"""
STOP = """mutation Stop($id: String) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""
TERMINATE = """mutation Terminate($id: String!) { terminateRun(runId: $id) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
TICKS = """query Ticks($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
  minIntervalSeconds sensorState { id status
    ticks(limit: 200) { tickId status skipReason runIds timestamp error { message } } } } } }"""


class Dagster:
    """A running webserver and the process that started it; asked about `tiny` unless another experiment is named."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with DIRECT.open(request, timeout=60) as answer:
            document = json.load(answer)
        assert "errors" not in document, document["errors"]
        return document["data"]

    def launch(self, *stages: str, experiment: str = "tiny") -> str:
        """Launch a run of `stages`, as the UI's Materialize does; returns its id."""
        keys = [{"path": [experiment, stage]} for stage in stages]
        selector = REPOSITORY | {"pipelineName": "__ASSET_JOB", "assetSelection": keys, "assetCheckSelection": []}
        launched = self.ask(LAUNCH, params={"selector": selector, "mode": "default"})["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def end(self, run: str) -> str:
        """Wait for the end of a run; its status."""

        def ended() -> str | None:
            status = self.ask(RUN, id=run)["runOrError"]["status"]
            return status if status in ENDED else None

        return self.wait(ended, f"run {run} did not end")

    def terminate(self, run: str) -> str:
        """End a run as the UI's Terminate does; its status then."""
        answer = self.ask(TERMINATE, id=run)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer
        return self.end(run)

    def events(self, run: str, kind: str) -> list[dict[str, Any]]:
        """The events of one GraphQL type that a run left, in order."""
        return [event for event in self.ask(EVENTS, id=run)["logsForRun"]["events"] if event["__typename"] == kind]

    def outcomes(self, run: str) -> dict[str, str]:
        """Stage → what became of it in a run."""
        made = self.events(run, "MaterializationEvent")
        return {event["assetKey"]["path"][1]: _tags(event)["press/outcome"] for event in made}

    def failures(self, run: str) -> list[str]:
        """What the failed stages of a run said."""
        return [event["failureMetadata"]["description"] for event in self.events(run, "ExecutionStepFailureEvent")]

    def sensor_runs(self, sensor: str) -> list[dict[str, Any]]:
        """The runs that a sensor requested, newest first, with their tags."""
        filters = {"tags": [{"key": "dagster/sensor_name", "value": sensor}]}
        return [run | {"tags": _tags(run)} for run in self.ask(RUNS, filter=filters)["runsOrError"]["results"]]

    def materialize(self, *stages: str, experiment: str = "tiny") -> str:
        """Run `stages` to the end; returns the run's status."""
        return self.end(self.launch(*stages, experiment=experiment))

    def launch_backfill(self, *stages: str, experiment: str = "tiny") -> str:
        """Launch a backfill of `stages`; returns its id."""
        keys = [{"path": [experiment, stage]} for stage in stages]
        launched = self.ask(BACKFILL, params={"assetSelection": keys, "allPartitions": True})
        return launched["launchPartitionBackfill"]["backfillId"]

    def end_backfill(self, backfill: str) -> list[str]:
        """Wait until a backfill has succeeded; returns the ids of its runs."""

        def ended() -> dict[str, Any] | None:
            found = self.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]
            assert found["error"] is None, found
            return found if found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None

        found = self.wait(ended, "the backfill did not end")
        assert found["status"] == "COMPLETED_SUCCESS", found
        return [run["runId"] for run in found["runs"]]

    def reload(self) -> str:
        """Reload the code location; its load error, or an empty text."""
        entry = self.ask(RELOAD, name="olive-press")["reloadRepositoryLocation"]["locationOrLoadError"]
        return entry.get("message", "")

    def nodes(self, experiment: str = "tiny") -> dict[str, dict[str, Any]]:
        """Stage → its mark and latest materialization."""
        keys = [{"path": [experiment, stage]} for stage in STAGES]
        found = {node["assetKey"]["path"][1]: node for node in self.ask(NODES, keys=keys)["assetNodes"]}
        return {stage: found[stage] for stage in STAGES}

    def marks(self, experiment: str = "tiny") -> dict[str, str]:
        """Stage → FRESH, STALE or MISSING, which the UI shows as Unsynced marks."""
        return {stage: node["staleStatus"] for stage, node in self.nodes(experiment).items()}

    def told(self, tag: str, experiment: str = "tiny") -> dict[str, str]:
        """Stage → this tag of its latest materialization."""
        made = {stage: node["assetMaterializations"] for stage, node in self.nodes(experiment).items()}
        return {stage: _tags(events[0])[tag] for stage, events in made.items() if events}

    def makers(self, experiment: str = "tiny") -> dict[str, str]:
        """Stage → the run of its latest materialization, empty where it was restored without one."""
        made = {stage: node["assetMaterializations"] for stage, node in self.nodes(experiment).items()}
        return {stage: events[0]["runId"] for stage, events in made.items() if events}

    def observed(self, source: str) -> str:
        """The data version of `source` that was observed last."""
        node = self.ask(OBSERVED, keys=[{"path": ["tiny", source]}])["assetNodes"][0]
        return _tags(node["assetObservations"][0])["dagster/data_version"]

    def start_sensor(self, sensor: str) -> None:
        started = self.ask(START, selector=REPOSITORY | {"sensorName": sensor})["startSensor"]
        assert started["__typename"] == "Sensor", started

    def stop_sensor(self, sensor: str) -> None:
        self.ask(STOP, id=self.sensor(sensor)["sensorState"]["id"])

    def sensor(self, sensor: str) -> dict[str, Any]:
        return self.ask(TICKS, selector=REPOSITORY | {"sensorName": sensor})["sensorOrError"]

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """The ended ticks of a sensor, newest first."""
        ticks = self.sensor(sensor)["sensorState"]["ticks"]
        return [tick for tick in ticks if tick["status"] != "STARTED"]

    def wait(self, condition: Callable[[], Any], otherwise: str, seconds: float = 180) -> Any:
        """What `condition` gives as soon as it gives something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.3)
        raise AssertionError(otherwise)


def _tags(event: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in event["tags"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def webserver(project: Project, folder: Path, workspace: Path = WORKSPACE) -> Iterator[Dagster]:
    """The webserver alone, without a daemon, on the code beside `workspace`; its log lies in `folder`."""
    port = free_port()
    command = [_script("dagster-webserver"), "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port)]
    with _service(command, project, folder, port) as server:
        yield server


@contextmanager
def webserver_and_daemon(project: Project, folder: Path) -> Iterator[Dagster]:
    """Webserver and daemon over sensors that look every second."""
    port = free_port()
    command = [_script("dagster"), "dev", "-w", str(QUICK_WORKSPACE), "-h", "127.0.0.1", "-p", str(port)]
    with _service(command, project, folder, port) as server:
        yield server


@contextmanager
def press_dev(project: Project, folder: Path) -> Iterator[Dagster]:
    """What a user gets from press dev."""
    port = free_port()
    with _service([_script("press"), "dev", "--port", str(port)], project, folder, port) as server:
        yield server


@contextmanager
def _service(command: list[str], project: Project, folder: Path, port: int) -> Iterator[Dagster]:
    environment = project.environment | {"DAGSTER_HOME": str(dagster_home(project.home)), "PYTHONWARNINGS": "ignore"}
    log = folder / "dagster.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
    try:
        yield _answering(Dagster(f"http://127.0.0.1:{port}/graphql", process), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def _answering(server: Dagster, log: Path) -> Dagster:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.process.poll() is None, log.read_text()
        try:
            if "nodes" in server.ask("{ assetNodes { id } nodes: version }"):
                return server
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError(f"no answer: {log.read_text()}")


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)
