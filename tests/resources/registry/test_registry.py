"""Every registry keeps the same promises; a backend is added to `registry` below."""

from __future__ import annotations

import pytest

from resources.errors import ConfigurationError
from resources.registry.local import LocalRegistry

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(params=["local"])
def registry(request, tmp_path):
    return {"local": lambda: LocalRegistry(tmp_path)}[request.param]()


def test_a_name_never_registered_has_no_versions(registry):
    assert registry.versions("model") == []
    assert registry.find("model", ONE) is None


def test_names_are_those_of_registered_models(registry):
    assert registry.names() == []
    registry.register("second", ONE, {}, "")
    registry.register("first", ONE, {}, "")
    assert registry.names() == ["first", "second"]


def test_what_was_registered_is_found_with_its_tags_and_card(registry):
    version = registry.register("model", ONE, {"rows": "300", "where": "Évora"}, "# card\n")
    assert (version.name, version.version, version.digest) == ("model", 1, ONE)
    assert registry.find("model", ONE) == version
    assert version.tags == {"rows": "300", "where": "Évora"}
    assert registry.card("model", 1) == "# card\n"


def test_the_same_content_has_one_version_that_never_changes(registry):
    first = registry.register("model", ONE, {"by": "one"}, "first")
    assert registry.register("model", ONE, {"by": "another"}, "second") == first
    assert registry.versions("model") == [first]
    assert registry.card("model", 1) == "first"


def test_other_content_gets_the_next_number_and_other_names_their_own(registry):
    for number in range(1, 12):
        assert registry.register("model", f"{number:064x}", {}, "").version == number
    assert [version.version for version in registry.versions("model")] == list(range(1, 12))
    assert registry.register("another", ONE, {}, "").version == 1


@pytest.mark.parametrize("name", ["", "..", "../model", "a/b", "/model", ".hidden", "x" * 64, "a\nb"])
def test_a_name_that_is_none_is_refused(registry, name):
    with pytest.raises(ConfigurationError, match="model name"):
        registry.register(name, ONE, {}, "")


@pytest.mark.parametrize("digest", ["", "1" * 63, "g" * 64, "../" + "1" * 61])
def test_a_digest_that_is_none_is_refused(registry, digest):
    with pytest.raises(ConfigurationError, match="digest"):
        registry.register("model", digest, {}, "")


def test_the_card_of_an_unknown_version_names_the_known_ones(registry):
    registry.register("model", TWO, {}, "")
    with pytest.raises(ConfigurationError, match="versions: 1"):
        registry.card("model", 7)
