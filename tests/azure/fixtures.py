"""Fixtures: one stand-in a session, and an environment that leads to it for each test that asks."""

from __future__ import annotations

import os

import pytest

from tests.azure.azurite import why_missing

STEERED = ("AZURE_", "AZUREML_", "MSI_", "IDENTITY_", "IMDS_")


@pytest.fixture(scope="session")
def running_stand_in(tmp_path_factory):
    from tests.azure.stand_in import StandIn

    stand_in = StandIn(tmp_path_factory.mktemp("azure"))
    yield stand_in
    stand_in.stop()


@pytest.fixture
def azure(running_stand_in, monkeypatch):
    """The stand-in, with this process and its children signed in to it."""
    for name in os.environ:
        if name.startswith(STEERED) or name == "SSL_CERT_DIR":
            monkeypatch.delenv(name)
    for name, value in running_stand_in.environment.items():
        monkeypatch.setenv(name, value)
    running_stand_in.start_again()
    return running_stand_in


@pytest.fixture
def workspace(azure, monkeypatch):
    """A new workspace with an empty container; the environment names it. Skips where Azurite cannot run."""
    if reason := why_missing():
        pytest.skip(reason)
    made = azure.workspace()
    monkeypatch.setenv("AZURE_ML_WORKSPACE", made.name)
    return made
