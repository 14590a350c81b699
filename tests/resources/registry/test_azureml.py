"""Azure ML as a registry: visible to its own tools, verified, and whole after everything that can go wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from resources.azure.workspace import AzureWorkspace, WorkspaceName
from resources.errors import ConfigurationError, StageError
from resources.registry.azureml import AzureMLRegistry
from resources.store.keys import Key
from resources.store.store import Store
from tests.azure.faults import Fault
from tests.azure.folders import make_folder, manifest_of

ROOT = Path(__file__).resolve().parents[3]
PUT = r"^PUT .*management.azure.com.*/models/trip/versions/"
PUT_BLOB = r"^PUT .*blob.core.windows.net"
CARD = "# trip\n\nEinfach ü.\n"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def registry(azure, workspace, home):
    return open_registry(WorkspaceName(azure.subscription, azure.resource_group, workspace.name), home)


@pytest.fixture
def digest(home):
    return build(home, 1)


def open_registry(name, home):
    return AzureMLRegistry(AzureWorkspace(name), home, Store(home))


def build(home, number, large=0):
    def produce(folder, scratch):
        make_folder(folder, number, large)

    return Store(home).build(Key({"recipe": "onnx_model", "number": number}), produce).entry.digest


def client(azure, workspace):
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    names = azure.subscription, azure.resource_group, workspace.name
    return MLClient(DefaultAzureCredential(), *names, enable_telemetry=False, show_progress=False)


def test_the_tools_of_azure_see_the_version_and_download_it(azure, workspace, registry, digest, home, tmp_path):
    version = registry.register("trip", digest, {"experiment": "trip", "rows": "300"}, CARD)
    shown = client(azure, workspace).models.get("trip", "1")
    assert shown.tags == {"experiment": "trip", "rows": "300"}
    assert shown.description == CARD
    assert shown.path.endswith(f"/datastores/workspaceblobstore/paths/olive-press/trees/{digest}/")
    assert shown.type == "custom_model"
    client(azure, workspace).models.download("trip", "1", download_path=tmp_path / "down")
    assert manifest_of(tmp_path / "down" / "trip" / digest).digest == digest
    assert version.page == (
        f"https://ml.azure.com/model/trip:1/details?wsid=/subscriptions/{azure.subscription}/resourceGroups/"
        f"{azure.resource_group}/providers/Microsoft.MachineLearningServices/workspaces/{workspace.name}"
    )


def test_a_version_is_fetched_whole_and_verified(azure, workspace, registry, digest, tmp_path):
    registry.register("trip", digest, {}, CARD)
    registry.fetch("trip", 1, tmp_path / "model")
    assert manifest_of(tmp_path / "model").digest == digest
    with pytest.raises(ConfigurationError, match="something there"):
        registry.fetch("trip", 1, tmp_path / "model")
    with pytest.raises(ConfigurationError, match="no version 7 of trip; accepted: one of its versions: 1"):
        registry.fetch("trip", 7, tmp_path / "other")
    blob = f"olive-press/trees/{digest}/seed"
    seed = hashlib.sha256(b"1").hexdigest()
    azure.storage(workspace).upload_blob(blob, b"2", overwrite=True, metadata={"sha256": seed})
    with pytest.raises(StageError, match="seed: its bytes are not those of its digest"):
        registry.fetch("trip", 1, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()
    assert list(tmp_path.rglob("seed")) != []


def test_what_is_known_is_answered_without_the_network(azure, registry, digest, home, workspace):
    version = registry.register("trip", digest, {"rows": "300"}, CARD)
    azure.traffic.forget()
    again = open_registry(WorkspaceName(azure.subscription, azure.resource_group, workspace.name), home)
    assert again.find("trip", digest) == version
    assert again.versions("trip") == [version]
    assert again.card("trip", 1) == CARD
    assert again.names() == ["trip"]
    assert azure.traffic.requests() == []


def test_versions_that_others_registered_keep_their_numbers(azure, workspace, registry, digest):
    from azure.ai.ml.entities import Model

    others = client(azure, workspace)
    for version in ("1", "7", "candidate"):
        path = f"azureml://datastores/workspaceblobstore/paths/others/{version}/"
        others.models.create_or_update(Model(name="trip", version=version, type="custom_model", path=path))
    assert registry.register("trip", digest, {}, CARD).version == 8
    assert [version.version for version in registry.versions("trip")] == [8]


def test_a_number_that_others_take_meanwhile_is_passed_over(azure, workspace, registry, digest):
    slow = Fault(PUT + "1", "delay", seconds=1)
    azure.traffic.add_faults(slow)

    def take():
        while slow.times:
            time.sleep(0.01)
        workspace.put_version("models", "trip", "1", {"modelUri": "azureml://elsewhere"})

    other = threading.Thread(target=take)
    other.start()
    assert registry.register("trip", digest, {}, CARD).version == 2
    other.join()


def test_a_version_deleted_in_the_workspace_is_registered_again_when_asked(workspace, registry, digest):
    registry.register("trip", digest, {"by": "first"}, CARD)
    workspace.delete_version("models", "trip", "1")
    assert registry.find("trip", digest) is not None
    assert registry.register("trip", digest, {"by": "second"}, CARD).tags == {"by": "second"}
    assert len(registry.versions("trip")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PUT, status=429, code="TooManyRequests", headers={"Retry-After": "1"}),
        Fault(PUT, status=429, code="TooManyRequests"),
        Fault(PUT, status=500, times=2),
        Fault(PUT, "lose"),
        Fault(PUT, "drop", bytes=10),
        Fault("listSecrets", status=503, code="ServiceUnavailable"),
    ],
    ids=["429-retry-after", "429", "500", "lost-answer", "dropped", "secrets-503"],
)
def test_a_bad_moment_is_overcome(azure, workspace, registry, digest, fault):
    azure.traffic.add_faults(fault)
    assert registry.register("trip", digest, {}, CARD).version == 1
    assert fault.times == 0
    assert len(workspace.versions("models", "trip")) == 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            Fault(PUT, status=403, code="AuthorizationFailed"),
            "model trip:1: Azure answered 403 AuthorizationFailed.*role",
        ),
        (Fault(PUT, status=400, code="UserError"), "model trip:1: Azure answered 400 UserError"),
        (Fault(PUT_BLOB, status=403, code="AuthorizationPermissionMismatch", times=9, after=2), "403 Authorization"),
        (Fault(r"^PUT .*/cards/", status=403, code="AuthorizationPermissionMismatch"), "cards.*403 Authorization"),
    ],
    ids=["403", "400", "blob-403", "card-403"],
)
def test_a_failure_is_told_and_a_rerun_completes_without_sending_again(
    azure, workspace, registry, digest, home, fault, told
):
    azure.traffic.add_faults(fault)
    with pytest.raises(StageError, match=told):
        registry.register("trip", digest, {}, CARD)
    assert registry.find("trip", digest) is None
    arrived = {one.line.partition("?")[0] for one in azure.traffic.requests(PUT_BLOB) if one.status == 201}
    azure.traffic.forget()
    assert registry.register("trip", digest, {}, CARD).version == 1
    resent = {one.line.partition("?")[0] for one in azure.traffic.requests(PUT_BLOB) if one.status == 201}
    assert arrived & resent == set()
    assert len(workspace.versions("models", "trip")) == 1


REGISTER = """
import sys
from pathlib import Path
from resources.azure.workspace import WorkspaceName
from tests.resources.registry.test_azureml import CARD, open_registry
print(open_registry(WorkspaceName(*sys.argv[1:4]), Path(sys.argv[4])).register("trip", sys.argv[5], {}, CARD).version)
"""


@pytest.mark.parametrize(
    ("held", "lost"),
    [
        (Fault(PUT_BLOB + r".*/trees/", "delay", seconds=60, times=9, after=2), False),
        (Fault(PUT, "delay", seconds=60), False),
        (Fault(PUT, "lose", times=9), True),
    ],
    ids=["while-publishing", "before-registering", "after-registering"],
)
def test_a_killed_registration_is_completed_by_the_next(azure, workspace, registry, digest, home, held, lost):
    azure.traffic.add_faults(held)
    names = azure.subscription, azure.resource_group, workspace.name
    command = [sys.executable, "-W", "ignore", "-c", REGISTER, *names, str(home), digest]
    killed = subprocess.Popen(command, cwd=ROOT, env=os.environ)
    before = held.times
    while held.times == before:
        assert killed.poll() is None
        time.sleep(0.01)
    while lost and not workspace.versions("models", "trip"):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert registry.find("trip", digest) is None
    azure.traffic.forget()
    assert registry.register("trip", digest, {}, CARD).version == 1
    assert len(workspace.versions("models", "trip")) == 1


def test_a_check_before_anything_runs_says_what_is_in_the_way(azure, workspace, registry):
    registry.check()
    registry.check()
    azure.traffic.add_faults(Fault(PUT_BLOB, status=403, code="AuthorizationPermissionMismatch"))
    with pytest.raises(StageError, match="403 AuthorizationPermissionMismatch"):
        registry.check()
    azure.storage(workspace).upload_blob("olive-press/VERSION", b"2\n", overwrite=True)
    with pytest.raises(ConfigurationError, match=r"VERSION.*found b'2\\n'"):
        registry.check()


def test_nothing_written_or_told_holds_a_secret(azure, workspace, home, digest, tmp_path):
    azure.traffic.add_faults(Fault(PUT_BLOB, "drop", times=1), Fault(PUT, status=500))
    names = azure.subscription, azure.resource_group, workspace.name
    told = "import logging; logging.basicConfig(level=logging.DEBUG)\n" + REGISTER
    command = [sys.executable, "-c", told, *names, str(home), digest]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in azure.secrets:
        assert not any(secret.encode() in data for data in [done.stdout, done.stderr, *written])
