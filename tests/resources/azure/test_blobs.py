"""Publishing and fetching artifacts over a bad line: done, or a clear error and a rerun that goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from resources.azure.blobs import Names, fetch, publish, read_manifest
from resources.azure.container import Container
from resources.errors import ConfigurationError, StageError
from resources.store.manifest import FileRecord, Manifest
from tests.azure.faults import Fault
from tests.azure.folders import make_folder, manifest_of

ROOT = Path(__file__).resolve().parents[3]
BLOCK = 1 << 20
LARGE = 2 * BLOCK + 1000
SENT = r"^PUT .*/trees/"


def names_of(manifest):
    return Names(lambda record: f"trees/{manifest.digest}/{record.path}", f"trees/{manifest.digest}.json")


def open_client(workspace):
    """The container as the workspace gives it out: with a fresh SAS."""
    from azure.storage.blob import ContainerClient

    return ContainerClient.from_container_url(f"{workspace.container_url}?{workspace.sas()}", retry_total=0)


def open_container(workspace, retries=3):
    return Container(lambda: open_client(workspace), "press/", retries)


@pytest.fixture
def container(workspace):
    return open_container(workspace)


@pytest.fixture
def small(tmp_path):
    return make_folder(tmp_path / "small")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("large"), large=LARGE)


def send(container, folder):
    manifest = manifest_of(folder)
    return publish(container, manifest, lambda record: folder / record.path, names_of(manifest), BLOCK)


def bring(container, manifest, folder):
    found = read_manifest(container, manifest.digest, names_of(manifest).manifest)
    assert found == manifest
    return fetch(container, found, folder, names_of(manifest).file)


def arrived_bytes(azure):
    """Of the files and the manifest, without the lists that make blobs of blocks."""
    requests = azure.traffic.requests(SENT)
    return sum(one.sent for one in requests if one.status == 201 and "comp=blocklist" not in one.line)


def test_what_was_published_comes_back_and_is_not_sent_again(azure, container, large, tmp_path):
    manifest = manifest_of(large)
    assert send(container, large).moved == manifest.bytes
    assert bring(container, manifest, tmp_path / "back").moved == manifest.bytes
    assert manifest_of(tmp_path / "back") == manifest
    azure.traffic.forget()
    assert send(container, large).moved == 0
    assert azure.traffic.requests("^PUT") == []
    (tmp_path / "back" / "seed").write_text("9")
    assert bring(container, manifest, tmp_path / "back").moved == 1
    assert manifest_of(tmp_path / "back") == manifest


def test_the_manifest_comes_last(azure, container, large):
    send(container, large)
    puts = [request.line for request in azure.traffic.requests("^PUT")]
    assert puts[-1].partition("?")[0].endswith(f"/press/trees/{manifest_of(large).digest}.json")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(r"^PUT .*comp=block&", "drop", bytes=BLOCK // 2, times=2),
        Fault(SENT, status=429, code="ServerBusy", headers={"Retry-After": "1"}, times=2),
        Fault(SENT, status=429, code="ServerBusy", times=2),
        Fault(SENT, status=500, times=3),
        Fault(SENT, status=503, code="ServerBusy", times=3, after=2),
        Fault(r"^PUT .*comp=blocklist", "lose"),
        Fault(r"^PUT .*/trees/[0-9a-f]+\.json", "lose"),
    ],
    ids=["dropped", "429-retry-after", "429", "500", "503", "lost-commit", "lost-manifest"],
)
def test_a_bad_moment_is_overcome(azure, container, large, tmp_path, fault):
    azure.traffic.add_faults(fault)
    began = time.monotonic()
    send(container, large)
    assert fault.times == 0
    assert time.monotonic() - began >= float(fault.headers.get("Retry-After", 0))
    azure.traffic.forget()
    bring(container, manifest_of(large), tmp_path / "back")


@pytest.mark.parametrize("do", ["cut", "answer"])
def test_a_bad_moment_while_fetching_is_overcome(azure, container, large, tmp_path, do):
    send(container, large)
    azure.traffic.add_faults(Fault(r"^GET .*model.onnx.data", do, bytes=BLOCK // 2, times=2))
    bring(container, manifest_of(large), tmp_path / "back")
    assert manifest_of(tmp_path / "back") == manifest_of(large)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(r"^PUT .*comp=block&", "drop", bytes=1000, times=99, after=2), "no connection"),
        (Fault(r"^PUT .*comp=block&", status=500, times=99, after=2), "500"),
        (
            Fault(r"^PUT .*comp=blocklist", status=403, code="AuthorizationPermissionMismatch", times=99),
            "403 Auth.*role",
        ),
        (
            Fault(r"^PUT .*trees/\w+.json", status=403, code="AuthorizationPermissionMismatch", times=99),
            "403 Auth.*role",
        ),
    ],
    ids=["no-connection", "500", "403-after-upload", "403-on-manifest"],
)
def test_a_failure_is_told_and_a_rerun_sends_only_what_did_not_arrive(azure, workspace, large, tmp_path, fault, told):
    azure.traffic.add_faults(fault)
    with pytest.raises(StageError, match=told):
        send(open_container(workspace, retries=1), large)
    container, manifest = open_container(workspace), manifest_of(large)
    assert read_manifest(container, manifest.digest, names_of(manifest).manifest) is None
    arrived = arrived_bytes(azure)
    assert arrived >= BLOCK
    azure.traffic.forget()
    send(container, large)
    assert arrived + arrived_bytes(azure) == manifest.bytes + len(manifest.to_json())
    bring(container, manifest, tmp_path / "back")


def test_credentials_that_end_on_the_way_are_renewed(azure, workspace, large, tmp_path):
    lifetimes = [2, 3600]

    def open_next():
        workspace.sas_seconds = lifetimes.pop(0)
        return open_client(workspace)

    container = Container(open_next, "press/")
    azure.traffic.add_faults(Fault(r"^PUT .*comp=block&", "delay", seconds=2, times=1, after=1))
    send(container, large)
    assert lifetimes == []
    bring(container, manifest_of(large), tmp_path / "back")


PUBLISH = """
import sys
from pathlib import Path
from azure.storage.blob import ContainerClient
from resources.azure.container import Container
from tests.resources.azure.test_blobs import send
container = Container(lambda: ContainerClient.from_container_url(sys.argv[1], retry_total=0), "press/")
send(container, Path(sys.argv[2]))
"""


def test_a_killed_publisher_is_followed_by_one_that_goes_on(azure, workspace, container, large, tmp_path):
    azure.traffic.add_faults(Fault(r"^PUT .*comp=block&", "delay", seconds=60, times=99, after=2))
    url = f"{workspace.container_url}?{workspace.sas()}"
    killed = subprocess.Popen([sys.executable, "-c", PUBLISH, url, str(large)], cwd=ROOT, env=os.environ)
    while sum(request.status == 201 for request in azure.traffic.requests("comp=block&")) < 2:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    manifest = manifest_of(large)
    assert read_manifest(container, manifest.digest, names_of(manifest).manifest) is None
    arrived = arrived_bytes(azure)
    azure.traffic.forget()
    assert send(container, large).moved > 0
    assert arrived + arrived_bytes(azure) == manifest.bytes + len(manifest.to_json())
    bring(container, manifest, tmp_path / "back")


def test_publishers_at_once_end_with_one_artifact(workspace, large, tmp_path):
    failures = []

    def send_one():
        try:
            send(open_container(workspace), large)
        except StageError as error:
            failures.append(error)

    threads = [threading.Thread(target=send_one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    bring(open_container(workspace), manifest_of(large), tmp_path / "back")


def test_a_damaged_blob_is_never_served(azure, workspace, container, small, tmp_path):
    send(container, small)
    manifest = manifest_of(small)
    storage = azure.storage(workspace)
    record = next(record for record in manifest.files if record.path == "seed")
    for data in (b"9", b"99", b""):
        storage.upload_blob(
            f"press/trees/{manifest.digest}/seed", data, overwrite=True, metadata={"sha256": record.sha256}
        )
        with pytest.raises(StageError, match="seed: its bytes are not those"):
            bring(container, manifest, tmp_path / "back")
        assert not (tmp_path / "back" / "seed").exists()
    storage.delete_blob(f"press/trees/{manifest.digest}/seed")
    with pytest.raises(StageError, match="no such blob"):
        bring(container, manifest, tmp_path / "back")


def test_a_damaged_manifest_is_told(azure, workspace, container, small):
    send(container, small)
    digest = manifest_of(small).digest
    azure.storage(workspace).upload_blob(f"press/trees/{digest}.json", b'{"files":[]}', overwrite=True)
    with pytest.raises(StageError, match="not those of its digest"):
        read_manifest(container, digest, f"trees/{digest}.json")


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "a/../../out", "a\\..\\out"])
def test_a_manifest_that_leads_outside_is_refused(container, path):
    hostile = json.dumps(
        {"files": [{"path": path, "sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}]},
        separators=(",", ":"),
        sort_keys=True,
    ).encode()
    digest = hashlib.sha256(hostile).hexdigest()
    container.create("trees/hostile.json", hostile, digest)
    with pytest.raises(StageError, match="no manifest to follow"):
        read_manifest(container, digest, "trees/hostile.json")


def test_a_size_that_lies_writes_nothing(container, small, tmp_path):
    send(container, small)
    true = manifest_of(small)
    records = [record for record in true.files if record.path != "seed"]
    lie = next(record for record in true.files if record.path == "seed")._replace(size=1 << 50)
    with pytest.raises(StageError, match="seed: its bytes"):
        fetch(container, Manifest((*records, lie)), tmp_path / "back", names_of(true).file)
    assert not (tmp_path / "back").exists()


def test_something_else_in_the_place_of_a_blob_is_not_built_on(azure, workspace, container, small):
    manifest = manifest_of(small)
    azure.storage(workspace).upload_blob(f"press/trees/{manifest.digest}/seed", b"other")
    with pytest.raises(StageError, match="seed: something else is in the place"):
        send(container, small)


def test_a_file_that_changed_since_is_not_published(container, small, large):
    for folder, name in ((small, "seed"), (large, "model.onnx.data")):
        manifest = manifest_of(folder)
        records = [record for record in manifest.files if record.path != name]
        other = FileRecord(name, (folder / name).stat().st_size, "0" * 64)
        changed = Manifest((*records, other))
        with pytest.raises(StageError, match="not those of"):
            publish(container, changed, lambda record, folder=folder: folder / record.path, names_of(changed), BLOCK)
        assert container.look(f"trees/{changed.digest}/{name}") is None


def test_a_container_that_is_not_there_is_told(azure, workspace, small):
    from azure.storage.blob import ContainerClient

    url = f"{workspace.container_url}x?{azure.workspace().sas()}"
    with pytest.raises(StageError, match=r"40[34]"):
        send(Container(lambda: ContainerClient.from_container_url(url, retry_total=0)), small)


def test_no_error_holds_a_signature(azure, workspace, small):
    azure.traffic.add_faults(Fault(r".", "drop", times=999))
    with pytest.raises(StageError) as caught:
        send(open_container(workspace, retries=0), small)
    told = "".join(traceback.format_exception(caught.value))
    assert "no connection" in told
    assert not any(secret in told for secret in azure.secrets)


@pytest.mark.parametrize("prefix", ["press", "/press/", "../", "a b/", "a//"])
def test_a_prefix_that_is_none_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="prefix"):
        Container(lambda: None, prefix)
