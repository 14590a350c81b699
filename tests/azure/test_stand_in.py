"""The stand-in keeps the promises that tests lean on: real host names, nothing else reachable, faults when asked."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.azure.faults import Fault


@pytest.fixture
def container(workspace):
    """The real client with a SAS, over proxy, TLS and the real host name; retries nothing."""
    from azure.storage.blob import ContainerClient

    return ContainerClient.from_container_url(f"{workspace.container_url}?{workspace.sas()}", retry_total=0)


def test_another_host_is_refused_and_recorded(azure):
    open_page = urllib.request.build_opener().open  # urlopen would keep this proxy for every test after this one
    with pytest.raises(urllib.error.URLError, match="403"):
        open_page("https://example.com/", timeout=10)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        open_page("http://example.com/", timeout=10)
    assert next(request.line for request in azure.traffic.requests("REFUSED")) == "REFUSED example.com:443"


def test_the_real_sdk_signs_in_and_sees_the_workspace(azure, workspace):
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    names = azure.subscription, azure.resource_group, workspace.name
    client = MLClient(DefaultAzureCredential(), *names, enable_telemetry=False)
    assert client.workspaces.get(workspace.name).name == workspace.name
    assert client.datastores.get_default().container_name == workspace.container_name
    assert azure.traffic.requests("REFUSED") == []


def test_blobs_come_back_as_they_went(container):
    container.upload_blob("a/b c.bin", b"x" * 300_000)
    assert container.download_blob("a/b c.bin").readall() == b"x" * 300_000
    assert [blob.name for blob in container.list_blobs()] == ["a/b c.bin"]


def test_a_request_is_refused_as_often_as_asked(azure, container):
    from azure.core.exceptions import HttpResponseError

    azure.traffic.add_faults(Fault(r"^PUT .*/one", status=429, code="ServerBusy", after=1))
    container.upload_blob("one", b"1")
    with pytest.raises(HttpResponseError, match="ServerBusy"):
        container.upload_blob("one", b"2", overwrite=True)
    container.upload_blob("one", b"3", overwrite=True)
    assert [request.status for request in azure.traffic.requests("^PUT .*/one")] == [201, 429, 201]


def test_an_upload_is_dropped_in_its_middle(azure, container):
    from azure.core.exceptions import AzureError

    azure.traffic.add_faults(Fault(r"^PUT .*/big", "drop", bytes=1_000_000))
    with pytest.raises(AzureError):
        container.upload_blob("big", b"x" * 4_000_000)
    assert [(request.sent, request.status) for request in azure.traffic.requests("PUT")] == [(1_000_000, 0)]
    assert not container.get_blob_client("big").exists()


def test_an_answer_is_lost_after_the_work_was_done(azure, container):
    from azure.core.exceptions import AzureError

    azure.traffic.add_faults(Fault(r"^PUT .*/lost", "lose"))
    with pytest.raises(AzureError):
        container.upload_blob("lost", b"x")
    assert container.get_blob_client("lost").exists()


def test_a_sas_that_ended_is_refused(workspace):
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

    workspace.sas_seconds = -5
    container = ContainerClient.from_container_url(f"{workspace.container_url}?{workspace.sas()}", retry_total=0)
    with pytest.raises(HttpResponseError, match="failed to authenticate"):
        container.upload_blob("one", b"1")


def test_who_is_signed_in_reads_the_container_without_a_key(workspace):
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import ContainerClient

    container = ContainerClient.from_container_url(workspace.container_url, DefaultAzureCredential())
    container.upload_blob("one", b"1")
    assert container.download_blob("one").readall() == b"1"


def test_what_a_real_workspace_is_asked_holds_here(azure, workspace, tiny_phi3):
    azure.registry("azureml").add_model("Phi-3.5-mini-instruct", "4", tiny_phi3)
    live = Path(__file__).with_name("live.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(live)]
    done = subprocess.run(command, cwd=live.parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "7 passed" in done.stdout
