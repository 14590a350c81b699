"""Every registry keeps the same promises; a backend is added to `registry` below."""

from __future__ import annotations

import threading

import pytest

from resources.azure.workspace import AzureWorkspace, WorkspaceName
from resources.errors import ConfigurationError
from resources.registry.azureml import AzureMLRegistry
from resources.registry.local import LocalRegistry
from resources.store.keys import Key
from resources.store.store import Store


@pytest.fixture(params=["local", "azureml"])
def open_registry(request, tmp_path):
    """Opens the registry of the machine whose PRESS_HOME is the folder given."""
    if request.param == "local":
        return lambda home: LocalRegistry(tmp_path / "shared")
    azure, workspace = request.getfixturevalue("azure"), request.getfixturevalue("workspace")
    name = WorkspaceName(azure.subscription, azure.resource_group, workspace.name)
    return lambda home: AzureMLRegistry(AzureWorkspace(name), home, Store(home))


@pytest.fixture
def registry(open_registry, tmp_path):
    return open_registry(tmp_path / "home")


@pytest.fixture
def digest(tmp_path):
    return lambda number: build(tmp_path / "home", number)


def build(home, number):
    """The digest of the artifact `number`, built into the store where it is not there."""

    def produce(folder, scratch):
        (folder / "model.onnx").write_text(f"graph {number}")

    return Store(home).build(Key({"recipe": "onnx_model", "number": number}), produce).entry.digest


def test_a_name_never_registered_has_no_versions(registry):
    assert registry.versions("model") == []
    assert registry.find("model", "1" * 64) is None


def test_names_are_those_of_registered_models(registry, digest):
    assert registry.names() == []
    registry.register("second", digest(1), {}, "")
    registry.register("first", digest(1), {}, "")
    assert registry.names() == ["first", "second"]


def test_what_was_registered_is_found_with_its_tags_and_card(registry, digest):
    one = digest(1)
    version = registry.register("model", one, {"rows": "300", "where": "Évora"}, "# card\n")
    assert (version.name, version.version, version.digest) == ("model", 1, one)
    assert registry.find("model", one) == version
    assert version.tags == {"rows": "300", "where": "Évora"}
    assert registry.card("model", 1) == "# card\n"


def test_the_same_content_has_one_version_that_never_changes(registry, digest):
    first = registry.register("model", digest(1), {"by": "one"}, "first")
    assert registry.register("model", digest(1), {"by": "another"}, "second") == first
    assert registry.versions("model") == [first]
    assert registry.card("model", 1) == "first"


def test_other_content_gets_the_next_number_and_other_names_their_own(registry, digest):
    for number in range(1, 12):
        assert registry.register("model", digest(number), {}, "").version == number
    assert [version.version for version in registry.versions("model")] == list(range(1, 12))
    assert registry.register("another", digest(1), {}, "").version == 1


@pytest.mark.parametrize("name", ["", "..", "../model", "a/b", "/model", ".hidden", "x" * 64, "a\nb"])
def test_a_name_that_is_none_is_refused(registry, name):
    with pytest.raises(ConfigurationError, match="model name"):
        registry.register(name, "1" * 64, {}, "")


@pytest.mark.parametrize("digest", ["", "1" * 63, "g" * 64, "../" + "1" * 61])
def test_a_digest_that_is_none_is_refused(registry, digest):
    with pytest.raises(ConfigurationError, match="digest"):
        registry.register("model", digest, {}, "")


def test_the_card_of_an_unknown_version_names_the_known_ones(registry, digest):
    registry.register("model", digest(2), {}, "")
    with pytest.raises(ConfigurationError, match="versions: 1"):
        registry.card("model", 7)


def test_what_one_machine_registered_another_finds_and_does_not_register_again(open_registry, tmp_path):
    here, there = (tmp_path / name for name in ("here", "there"))
    first = open_registry(here).register("model", build(here, 1), {"by": "here"}, "card of here")
    other = open_registry(there)
    assert other.register("model", build(there, 1), {"by": "there"}, "card of there") == first
    assert other.register("model", build(there, 2), {}, "").version == 2
    assert other.card("model", 1) == "card of here"
    assert [version.version for version in open_registry(there).versions("model")] == [1, 2]


def test_registrations_at_once_agree(open_registry, tmp_path):
    numbers, found = range(3), {}

    def register_all(home, order):
        registry = open_registry(home)
        found[home] = {number: registry.register("model", build(home, number), {}, "").version for number in order}

    homes = [tmp_path / f"machine {number}" for number in range(3)]
    orders = [[numbers[(start + step) % 3] for step in range(3)] for start in range(3)]
    threads = [threading.Thread(target=register_all, args=pair) for pair in zip(homes, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found[homes[0]].values()) == [1, 2, 3]
    assert found[homes[0]] == found[homes[1]] == found[homes[2]]
