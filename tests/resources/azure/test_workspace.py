"""What names a workspace, and what is told before anything runs when it cannot be used."""

from __future__ import annotations

import io
import json
import logging

import pytest

from resources.azure.container import Container
from resources.azure.workspace import AzureWorkspace, WorkspaceName, find_workspace
from resources.errors import ConfigurationError
from tests.azure.faults import Fault

WORKSPACE = r"^GET .*management.azure.com.*workspaces/ws\d+\?"
NOTHING = {"subscription": None, "resource_group": None, "workspace": None}


@pytest.fixture
def named(azure, monkeypatch):
    """A workspace by its name, Azurite or not."""
    made = azure.workspace()
    return WorkspaceName(azure.subscription, azure.resource_group, made.name)


def refusal(name):
    with pytest.raises(ConfigurationError) as caught:
        AzureWorkspace(name).check()
    return str(caught.value)


def test_the_section_comes_before_the_environment_and_that_before_the_file(tmp_path, monkeypatch):
    file = {"subscription_id": "file-s", "resource_group": "file-g", "workspace_name": "file-w"}
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml" / "config.json").write_text(json.dumps(file))
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "env-s")
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "env-g")
    monkeypatch.delenv("AZURE_ML_WORKSPACE", raising=False)
    found = find_workspace({**NOTHING, "subscription": "section-s"}, tmp_path)
    assert found == WorkspaceName("section-s", "env-g", "file-w")


def test_what_is_missing_is_named_with_where_it_may_stand(azure, tmp_path):
    with pytest.raises(ConfigurationError, match=r"no workspace; .*AZURE_ML_WORKSPACE.*config\.json"):
        find_workspace(NOTHING, tmp_path)


@pytest.mark.parametrize("value", ["a/b", "..\\x", "a?b", "a b", "a\nb"])
def test_a_name_that_would_lead_elsewhere_is_refused(azure, tmp_path, value):
    with pytest.raises(ConfigurationError, match=r"azure\.workspace"):
        find_workspace({**NOTHING, "workspace": value}, tmp_path)


def test_a_config_file_that_is_none_is_refused(azure, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json: found no JSON"):
        find_workspace(NOTHING, tmp_path)


def test_a_workspace_that_is_there_passes(named):
    AzureWorkspace(named).check()


def test_a_wrong_secret_is_told_without_it(azure, named, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-secret-of-mine")
    told = refusal(named)
    assert "nobody signed in (AADSTS7000215)" in told
    assert "az login" in told
    assert "wrong-secret-of-mine" not in told


def test_nobody_signed_in_is_told(azure, named, monkeypatch):
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    assert "nobody signed in; accepted: a signed-in identity. Sign in with az login" in refusal(named)


@pytest.mark.parametrize("part", ["subscription", "resource_group", "workspace"])
def test_what_does_not_exist_is_named(named, part):
    told = refusal(WorkspaceName(**{**vars(named), part: "nowhere"}))
    assert told.startswith(f"azure.{part}: found no such {part.replace('_', ' ')}: nowhere")


def test_missing_rights_are_told(azure, named):
    azure.traffic.add_faults(Fault(WORKSPACE, status=403, code="AuthorizationFailed"))
    assert "no rights on the workspace" in (told := refusal(named))
    assert "403 AuthorizationFailed" in told
    assert "AzureML Data Scientist" in told


@pytest.mark.parametrize(("ahead", "told"), [(3600, "60 minutes behind"), (-1200, "20 minutes ahead of")])
def test_a_clock_that_is_wrong_is_told(azure, named, ahead, told):
    azure.clock_ahead = ahead
    assert f"this machine's clock is {told} Azure's" in refusal(named)


def test_a_bad_moment_is_overcome(azure, named):
    azure.traffic.add_faults(Fault(WORKSPACE, status=429, code="TooManyRequests", headers={"Retry-After": "1"}))
    azure.traffic.add_faults(Fault(WORKSPACE, status=500))
    azure.traffic.add_faults(Fault(WORKSPACE, "lose"))
    AzureWorkspace(named).check()


@pytest.mark.parametrize("credentials", ["Sas", "AccountKey", "None"])
def test_the_default_datastore_is_opened_whatever_its_credentials(azure, workspace, credentials):
    workspace.credentials = credentials
    opened = AzureWorkspace(WorkspaceName(azure.subscription, azure.resource_group, workspace.name))
    container = Container(opened.container, "press/")
    assert container.create("one", b"1", "digest")
    assert container.read("one", 0, 1) == b"1"
    assert opened.datastore == "workspaceblobstore"


def test_who_may_not_read_the_secrets_is_let_in_by_role(azure, workspace):
    azure.traffic.add_faults(Fault("listSecrets", status=403, code="AuthorizationFailed", times=9))
    opened = AzureWorkspace(WorkspaceName(azure.subscription, azure.resource_group, workspace.name))
    assert Container(opened.container).create("one", b"1", "digest")


def test_no_log_holds_a_secret(azure, workspace):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        opened = AzureWorkspace(WorkspaceName(azure.subscription, azure.resource_group, workspace.name))
        opened.check()
        Container(opened.container).create("one", b"1", "digest")
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    assert not any(secret in written.getvalue() for secret in azure.secrets)
