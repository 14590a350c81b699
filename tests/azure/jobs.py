"""Compute of a workspace: clusters, and jobs that run as processes of this machine, each in an empty home."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.azure.control_plane import Refused

if TYPE_CHECKING:
    from tests.azure.workspaces import StandInWorkspace

DATASTORE = re.compile(r".*/paths/(.+)")


@dataclass
class StandInJob:
    """A job: `process` where a node began with it; it ends with its node's process group."""

    document: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    status: str = "Queued"
    folder: Path = field(default_factory=Path)

    @property
    def is_over(self) -> bool:
        return self.status in ("Completed", "Failed", "Canceled")

    def output(self) -> str:
        """What its process printed."""
        return (self.folder / "output.txt").read_text(errors="replace")


@dataclass
class StandInJobs:
    """The clusters and jobs of a workspace. start_seconds: how long a node takes before it begins with a job."""

    workspace: StandInWorkspace
    start_seconds: float = 0.0
    clusters: set[str] = field(default_factory=set)
    jobs: dict[str, StandInJob] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def cluster(self, name: str) -> dict[str, Any]:
        if name not in self.clusters:
            raise Refused(404, "ResourceNotFound", f"The compute {name} was not found.")
        properties = {"vmSize": "STANDARD_D2_V2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}}
        outer = {"computeType": "AmlCompute", "provisioningState": "Succeeded", "properties": properties}
        path = f"{self.workspace.path}/computes/{name}"
        return {"id": path, "name": name, "location": "eastus", "type": "x", "properties": outer}

    def answer(self, method: str, name: str, action: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if method == "PUT":
                return self._create(name, body["properties"])
            if name not in self.jobs:
                raise Refused(404, "UserError", f"Job {name} not found.")
            if action == "/cancel":
                self.cancel(name)
                return 200, {}
            return 200, self._shown(name)

    def cancel(self, name: str) -> None:
        with self._lock:
            job = self.jobs[name]
            if not job.is_over:
                job.status = "Canceled"
                _kill(job)

    def await_status(self, name: str, *statuses: str) -> None:
        deadline = time.monotonic() + 60
        while self.jobs[name].status not in statuses:
            assert time.monotonic() < deadline, f"{name} is {self.jobs[name].status} and not {statuses}"
            time.sleep(0.05)

    def stop(self) -> None:
        for name in list(self.jobs):
            self.cancel(name)

    def _create(self, name: str, properties: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A name is given once: asking again with the same answers what is there, anything else is refused."""
        if name in self.jobs:
            if self.jobs[name].document != properties:
                raise Refused(409, "UserError", f"A job with this name already exists: {name}")
            return 200, self._shown(name)
        self.cluster(properties["computeId"].rpartition("/")[2])
        job = self.jobs[name] = StandInJob(properties)
        threading.Thread(target=self._run, args=(name, job), daemon=True).start()
        return 201, self._shown(name)

    def _shown(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        studio = {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{name}"}
        properties = {**job.document, "status": job.status, "services": {"Studio": studio}}
        from tests.azure.workspaces import system_data

        path = f"{self.workspace.path}/jobs/{name}"
        return {"id": path, "name": name, "type": "x", "properties": properties, "systemData": system_data()}

    def _run(self, name: str, job: StandInJob) -> None:
        time.sleep(self.start_seconds)
        with tempfile.TemporaryDirectory(prefix="job-") as node:
            with self._lock:
                if job.is_over:
                    return
                job.folder = self.workspace.stand_in.folder / "jobs" / self.workspace.name / name
                job.folder.mkdir(parents=True)
                job.process = self._start(job, Path(node))
                job.status = "Running"
            limit = (job.document.get("limits") or {}).get("timeout")
            try:
                code = job.process.wait(_seconds(limit) if limit else None)
            except subprocess.TimeoutExpired:
                self.cancel(name)
            else:
                with self._lock:
                    if not job.is_over:
                        job.status = "Failed" if code else "Completed"

    def _start(self, job: StandInJob, node: Path) -> subprocess.Popen[bytes]:
        """The node signs in as itself, as with a managed identity; nothing of the orchestrator is there."""
        command = job.document["command"]
        for name, one in job.document["inputs"].items():
            command = command.replace("${{inputs." + name + "}}", str(self._download(one["uri"], node / name)))
        identity = self.workspace.stand_in.environment
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        home = {"HOME": str(node), "TMPDIR": str(node), "PATH": path}
        environment = {**home, **identity, **job.document["environmentVariables"]}
        with (job.folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                ["bash", "-c", command],
                env=environment,
                cwd=node,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _download(self, uri: str, folder: Path) -> Path:
        found = DATASTORE.fullmatch(uri)
        assert found, uri
        storage = self.workspace.stand_in.storage(self.workspace)
        for blob in storage.list_blobs(name_starts_with=found[1]):
            file = folder / blob.name.removeprefix(found[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(storage.download_blob(blob.name).readall())
        return folder


def _kill(job: StandInJob) -> None:
    if job.process and job.process.poll() is None:
        os.killpg(job.process.pid, signal.SIGKILL)
        job.process.wait()


def _seconds(duration: str) -> float:
    """Of an ISO 8601 duration such as PT1H30M or PT3S."""
    found = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?", duration)
    assert found, duration
    hours, minutes, seconds = (float(one or 0) for one in found.groups())
    return hours * 3600 + minutes * 60 + seconds
