"""What the stand-in only assumes of Azure, asked of a real workspace: make test-azure-live.

The workspace is the one that AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE name, or a config.json
in the current folder. A model with a name of its own is registered there and archived at the end; its blobs are
deleted. docs/azure.md lists the points.
"""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path

import pytest

from resources.azure.catalog import find_model, open_model
from resources.azure.container import Container
from resources.azure.workspace import AzureWorkspace, find_workspace
from resources.errors import ConfigurationError
from resources.model_layout import wanted_files
from resources.registry.azureml import PREFIX, AzureMLRegistry
from resources.store.keys import Key
from resources.store.store import Store
from tests.azure.folders import make_folder, manifest_of

CARD = "# A model of a test\n\nÜ " + "long " * 900
TAGS = {f"tag{number}": "v" * 64 for number in range(20)} | {"where": "Évora"}
MODEL = f"olive-press-live-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def azure_workspace():
    return AzureWorkspace(find_workspace({}, Path.cwd()))


@pytest.fixture(scope="module")
def contents(azure_workspace, tmp_path_factory):
    """Two artifacts that no other test has; their blobs and the model are removed at the end."""
    home, seed = tmp_path_factory.mktemp("live") / "home", uuid.uuid4().int

    def make(number: int, folder: Path) -> None:
        make_folder(folder, seed + number)

    digests = [
        Store(home).build(Key({"recipe": "live", "n": n}), lambda folder, _, n=n: make(n, folder)).entry
        for n in range(2)
    ]
    yield home, [entry.digest for entry in digests]
    storage = azure_workspace.container()
    for entry in digests:
        for blob in storage.list_blobs(name_starts_with=f"{PREFIX}trees/{entry.digest}"):
            storage.delete_blob(blob.name)
    for model in azure_workspace.client.models.list(name=MODEL):
        azure_workspace.client.models.archive(name=MODEL, version=model.version)


@pytest.fixture(scope="module")
def registry(azure_workspace, contents):
    return AzureMLRegistry(azure_workspace, contents[0], Store(contents[0]))


def test_the_workspace_lets_us_in(registry):
    registry.check()


def test_a_name_that_is_not_there_is_told(azure_workspace):
    absent = find_workspace({"workspace": "no-such-workspace-of-ours"}, Path.cwd())
    with pytest.raises(ConfigurationError, match=r"azure\.workspace"):
        AzureWorkspace(absent).check()


def test_a_version_comes_back_as_it_was_registered(registry, contents, azure_workspace, tmp_path):
    home, (digest, _) = contents
    version = registry.register(MODEL, digest, TAGS, CARD)
    assert (version.version, version.tags) == (1, TAGS)
    other = AzureMLRegistry(azure_workspace, tmp_path / "other", Store(home))
    again = other.register(MODEL, digest, {}, "")
    assert (again.version, again.tags, again.page) == (1, TAGS, version.page)
    assert other.card(MODEL, 1) == CARD
    other.fetch(MODEL, 1, tmp_path / "fetched")
    assert manifest_of(tmp_path / "fetched").digest == digest
    shown = azure_workspace.client.models.get(MODEL, "1")
    assert (shown.path or "").endswith(f"/paths/{PREFIX}trees/{digest}/")


def test_registering_at_once_gives_one_version(registry, contents, azure_workspace, tmp_path):
    home, (_, digest) = contents
    found = []

    def register(number):
        one = AzureMLRegistry(azure_workspace, tmp_path / str(number), Store(home))
        found.append(one.register(MODEL, digest, {}, CARD).version)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2, 2, 2]


def test_a_number_that_is_taken_cannot_be_given_other_content(azure_workspace):
    from azure.ai.ml.entities import Model
    from azure.core.exceptions import AzureError

    path = f"azureml://datastores/{azure_workspace.datastore}/paths/{PREFIX}elsewhere/"
    with pytest.raises(AzureError):
        azure_workspace.client.models.create_or_update(Model(name=MODEL, version="1", type="custom_model", path=path))


def test_blobs_are_made_once_and_blocks_are_kept(azure_workspace):
    container, name = Container(azure_workspace.container, PREFIX), f"trees/live-{uuid.uuid4().hex}"
    container.stage(name, "00000-a", b"a" * 1000)
    assert container.look(name) is None
    assert container.staged(name) == {"00000-a": 1000}
    try:
        assert container.commit(name, ["00000-a"], "digest")
        assert not container.commit(name, ["00000-a"], "digest")
        assert not container.create(name, b"b", "other")
        found = container.look(name)
        assert found is not None
        assert (found.size, found.sha256) == (1000, "digest")
    finally:
        azure_workspace.container().delete_blob(PREFIX + name)


def test_the_catalog_has_the_model_of_the_lab_as_a_hugging_face_folder():
    """Its layout is looked at and its smallest piece read; the weights stay there."""
    name = find_model("azureml://registries/azureml/models/Phi-3.5-mini-instruct/versions/4", {}, Path.cwd(), "model")
    files = open_model(name, "model")
    wanted = wanted_files(files.paths.keys(), "model")
    assert {"config.json", "tokenizer_config.json"} <= wanted.keys()
    assert any(file.endswith(".safetensors") for file in wanted)
    config = files.paths[wanted["config.json"]]
    assert json.loads(files.container.read_version(config.name, 0, config.size, config.version))["architectures"]
