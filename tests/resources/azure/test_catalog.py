"""Base models from a registry and from a workspace: what names them, what arrives, what is refused, and why."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.azure.catalog import find_model
from resources.azure.workspace import WorkspaceName
from resources.base_models import AzureMLModel
from resources.errors import ConfigurationError, PressError, StageError
from resources.progress import RecordedProgress
from tests.azure.faults import Fault

SECTION = {"subscription": "S", "resource_group": "g", "workspace": "w"}
FULL = "azureml://subscriptions/S/resourceGroups/g/workspaces/w/models/phi/versions/4"
LARGE = r"^GET https://[^/]*blob\.core.*merges\.txt"
ROOT = Path(__file__).resolve().parents[3]
FETCH = """
import sys
from pathlib import Path
from resources.base_models import AzureMLModel
from resources.progress import RecordedProgress
AzureMLModel(sys.argv[1]).fetch(Path(sys.argv[2]), Path(sys.argv[3]), RecordedProgress())
"""
BLOB = r"^GET https://[^/]*blob\.core.*model.*\.safetensors"
CATALOG_LAYOUT = "mlflow_model_folder/data/model"


@pytest.fixture
def registry(workspace, azure):
    return azure.registry()


@pytest.fixture
def published(tiny_llama, tmp_path):
    """A model as the catalog lays it out: weights and tokenizer apart, other formats beside them."""
    root = tmp_path / "published"
    folder = root / CATALOG_LAYOUT
    shutil.copytree(tiny_llama, folder)
    (root / CATALOG_LAYOUT).parent.joinpath("tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.move(folder / name, folder.parent / "tokenizer" / name)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (root / "cpu-int4-rtn-block-32").mkdir()
    (root / "cpu-int4-rtn-block-32" / "genai_config.json").write_text("{}")
    (root / "MLmodel").write_text("flavors: {}\n")
    return root


def place_of(registry, version="4", **options):
    return AzureMLModel(f"azureml://registries/{registry.name}/models/phi/versions/{version}", **options)


def fetch(place, folder):
    """Fetch as the store does: a fresh folder, and a scratch that outlives it."""
    scratch = folder.with_name("scratch")
    scratch.mkdir(exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    place.fetch(folder, scratch, RecordedProgress())
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def files_of(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_a_model_of_a_registry_arrives_as_its_hugging_face_folder(registry, published, tiny_llama, tmp_path):
    registry.add_model("phi", "4", published)
    fetched = fetch(place_of(registry), tmp_path / "model")
    assert fetched == files_of(tiny_llama)
    assert not any((tmp_path / "scratch").iterdir())


def test_its_own_code_comes_along_when_it_is_trusted(registry, published, tmp_path):
    registry.add_model("phi", "4", published)
    assert "modeling_own.py" in fetch(place_of(registry, trust_remote_code=True), tmp_path / "model")


@pytest.mark.parametrize("credentials", ["Sas", "AccountKey", "None"])
def test_a_model_of_a_workspace_arrives(azure, registry, tiny_llama, tmp_path, credentials, monkeypatch):
    workspace = azure.workspace(credentials=credentials)
    monkeypatch.setenv("AZURE_ML_WORKSPACE", workspace.name)
    for file in tiny_llama.iterdir():
        azure.storage(workspace).upload_blob(f"models/phi/{file.name}", file.read_bytes())
    path = f"azureml:/{workspace.path}/datastores/workspaceblobstore/paths/models/phi"
    workspace.put_version("models", "phi", "2", {"modelType": "custom_model", "modelUri": path})
    assert fetch(AzureMLModel("azureml:phi:2"), tmp_path / "model") == files_of(tiny_llama)
    full = f"azureml:/{workspace.path}/models/phi/versions/2"
    assert fetch(AzureMLModel(full), tmp_path / "model") == files_of(tiny_llama)


def test_a_connection_that_breaks_is_made_again(registry, azure, published, tmp_path):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(BLOB, "cut", bytes=1000), Fault(BLOB, status=503), Fault(BLOB, "lose"))
    weights = (published / CATALOG_LAYOUT / "model.safetensors").read_bytes()
    assert fetch(place_of(registry), tmp_path / "model")["model.safetensors"] == weights
    assert len(azure.traffic.requests(BLOB)) == 4


@pytest.fixture
def large(published):
    """A file of several pieces; text belongs to a model whatever it says."""
    file = published / CATALOG_LAYOUT / "merges.txt"
    file.write_bytes(random.Random(1).randbytes(21 << 20))
    return file


def test_what_arrived_before_a_failure_is_not_fetched_again(registry, azure, published, large, tmp_path):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(LARGE, status=403, code="AuthorizationPermissionMismatch", after=4, times=99))
    with pytest.raises(StageError, match="403 AuthorizationPermissionMismatch"):
        fetch(place_of(registry), tmp_path / "model")
    arrived = len([request for request in azure.traffic.requests(LARGE) if request.status == 206])
    azure.start_again()
    assert fetch(place_of(registry), tmp_path / "model")["merges.txt"] == large.read_bytes()
    assert arrived >= 1
    assert len(azure.traffic.requests(LARGE)) == 6 - arrived


def test_a_kill_costs_only_what_was_on_its_way(registry, azure, published, large, tmp_path):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(LARGE, "delay", seconds=20, after=3, times=9))
    (tmp_path / "model").mkdir()
    (tmp_path / "scratch").mkdir()
    command = [
        sys.executable,
        "-c",
        FETCH,
        place_of(registry).model,
        str(tmp_path / "model"),
        str(tmp_path / "scratch"),
    ]
    process = subprocess.Popen(command, cwd=ROOT)
    notes = tmp_path / "scratch" / ".merges.txt.pieces"
    while process.poll() is None and not (notes.is_file() and notes.read_text().count("\n") == 4):
        time.sleep(0.02)
    process.kill()
    process.wait()
    azure.start_again()
    assert fetch(place_of(registry), tmp_path / "model")["merges.txt"] == large.read_bytes()
    assert len(azure.traffic.requests(LARGE)) == 3


def test_a_blob_that_was_replaced_meanwhile_is_fetched_anew(registry, azure, published, large, tmp_path):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(LARGE, status=403, after=4, times=99))
    with pytest.raises(StageError):
        fetch(place_of(registry), tmp_path / "model")
    azure.start_again()
    other = random.Random(2).randbytes(21 << 20)
    name = f"phi/4/contents/{CATALOG_LAYOUT}/merges.txt"
    azure.storage_of(registry.container_name).upload_blob(name, other, overwrite=True)
    assert fetch(place_of(registry), tmp_path / "model")["merges.txt"] == other


def test_a_signature_that_ends_on_the_way_is_renewed(registry, azure, published, tmp_path):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(BLOB, status=403, code="AuthenticationFailed"))
    fetch(place_of(registry), tmp_path / "model")
    assert len(azure.traffic.requests("^POST .*/datarefs/phi/versions/4")) == 2


def test_bytes_that_are_not_those_of_their_md5_are_refused(registry, azure, tiny_llama, tmp_path):
    from azure.storage.blob import ContentSettings

    registry.add_model("phi", "4", tiny_llama)
    blob = azure.storage_of(registry.container_name).get_blob_client("phi/4/contents/config.json")
    blob.set_http_headers(ContentSettings(content_md5=bytearray(16)))
    with pytest.raises(StageError, match=r"config\.json: its bytes are not those of the MD5"):
        fetch(place_of(registry), tmp_path / "model")


def refusal(place, tmp_path):
    with pytest.raises(PressError) as caught:
        fetch(place, tmp_path / "model")
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_version_that_is_not_there_is_told(registry, published, tmp_path):
    registry.add_model("phi", "4", published)
    told = refusal(place_of(registry, "5"), tmp_path)
    assert told.startswith(f"ConfigurationError: base_model.azureml: found no such model: phi:5 of {registry.name}")


def test_a_registry_that_is_not_there_is_told(workspace, tmp_path):
    told = refusal(AzureMLModel("azureml://registries/nowhere/models/phi/versions/4"), tmp_path)
    assert "no such model: phi:4 of nowhere" in told


def test_a_model_that_the_workspace_lacks_is_told(workspace, tmp_path):
    assert f"no such model: phi:1 of {workspace.name}" in refusal(AzureMLModel("azureml:phi:1"), tmp_path)


@pytest.mark.parametrize("request_of", ["^GET .*/models/phi/", "^POST .*/datarefs/phi/"])
def test_missing_rights_are_told(registry, azure, published, tmp_path, request_of):
    registry.add_model("phi", "4", published)
    azure.traffic.add_faults(Fault(request_of, status=403, code="AuthorizationFailed", times=9))
    told = refusal(place_of(registry), tmp_path)
    assert "no rights on phi:4" in told
    assert "AzureML Registry User" in told


def test_who_is_not_signed_in_is_told(registry, published, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    assert "nobody signed in (AADSTS7000215)" in refusal(place_of(registry), tmp_path)


def test_no_secret_is_told_or_written(registry, azure, published, tmp_path, caplog, capfd):
    registry.add_model("phi", "4", published)
    fetch(place_of(registry), tmp_path / "model")
    azure.traffic.add_faults(Fault(BLOB, status=403, times=9))
    written = refusal(place_of(registry), tmp_path) + caplog.text + "".join(capfd.readouterr())
    written += "".join(file.read_text("latin-1") for file in tmp_path.rglob("*") if file.is_file())
    assert not [secret for secret in azure.secrets if secret in written]


@pytest.mark.parametrize(
    "model",
    [
        "azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/4",
        "azureml:phi:4",
        FULL,
        "azureml:/subscriptions/S/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/models/phi/versions/4",
        "azureml://SUBSCRIPTIONS/s/resourcegroups/G/workspaces/W/models/phi/versions/4",
    ],
)
def test_every_way_to_name_a_model_is_understood_without_asking(model):
    of_workspace = f"azureml workspace {WorkspaceName('s', 'g', 'w').path.lower()} phi:4"
    name = find_model(model, SECTION, Path(), "base_model.azureml")
    assert name.identity in ("azureml registry azureml Phi-3.5-mini-instruct:4", of_workspace)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("phi", "accepted: azureml://registries/"),
        ("azureml:phi", "accepted: azureml://registries/"),
        ("azureml:phi@latest", "name the version"),
        ("azureml://registries/azureml/models/phi/labels/latest", "name the version"),
        ("azureml://registries/azureml/data/phi/versions/1", "accepted: "),
        ("azureml://registries/a/b/models/phi/versions/1", "accepted: "),
        ("azureml://locations/eastus/workspaces/0-0/models/phi/versions/1", "azureml:NAME:VERSION"),
        (FULL.replace("/w/", "/%2e%2e/"), "a plain name"),
    ],
)
def test_what_names_no_version_is_refused(model, told):
    with pytest.raises(ConfigurationError, match=r"azure") as caught:
        find_model(model, SECTION, Path(), "base_model.azureml")
    assert told in str(caught.value)
