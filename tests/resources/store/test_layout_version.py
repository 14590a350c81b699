"""A store of another layout is left alone."""

from __future__ import annotations

import pytest

from resources.errors import ConfigurationError
from resources.store.store import Store
from tests.resources.store.artifacts import FILES, key_of, must_not_run, produces

USES = {
    "find": lambda store: store.find(key_of("a")),
    "build": lambda store: store.build(key_of("a"), must_not_run),
    "open": lambda store: store.open("0" * 64),
    "use": lambda store: store.use("0" * 64),
    "manifest": lambda store: store.manifest("0" * 64),
    "entry": lambda store: store.entry(key_of("a").id),
    "entries": lambda store: list(store.entries()),
    "verify": lambda store: store.verify(),
    "repair": lambda store: store.repair(),
    "gc": lambda store: store.gc(0, set()),
    "gc, dry run": lambda store: store.gc(0, set(), dry_run=True),
    "ancestors": lambda store: store.ancestors(["0" * 64]),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("version", ["0", "2", "", "1.1", "\udcff", None])
def test_another_version_is_refused_and_untouched(home, store, use, version):
    store.build(key_of("a"), produces(FILES))
    file = home / "store" / "VERSION"
    file.unlink()
    if version is not None:
        file.write_text(version, errors="surrogateescape")
    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
    with pytest.raises(ConfigurationError, match=r"VERSION: found (no )?version.*accepted: layout version 1"):
        USES[use](Store(home))
    assert {path: path.lstat().st_mtime_ns for path in home.rglob("*")} == before


def test_the_version_is_written_with_the_first_artifact(home, store):
    store.build(key_of("a"), produces(FILES))
    assert (home / "store" / "VERSION").read_text() == "1\n"
