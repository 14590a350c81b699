"""A store that cannot be written still serves what it has, and says what it cannot do."""

from __future__ import annotations

import pytest

from resources.errors import StageError
from resources.store.store import Store
from tests.resources.store.artifacts import FILES, files_in, key_of, must_not_run, produces


@pytest.fixture
def read_only(home, store, mount) -> Store:
    store.open(store.build(key_of("opened"), produces(FILES)).entry.digest)
    store.build(key_of("closed"), produces({"one": b"1"}))
    mount(home, "--bind", str(home))
    mount(home, "-o", "remount,bind,ro")
    return Store(home)


def test_what_is_there_is_found_reused_opened_and_verified(read_only):
    entry = read_only.find(key_of("opened"))
    assert read_only.build(key_of("opened"), must_not_run).outcome == "reused"
    assert files_in(read_only.open(entry.digest)) == FILES
    assert read_only.verify().damaged == []
    assert len(list(read_only.entries())) == 2
    assert len(read_only.gc(0, set(), dry_run=True).freed) == 2


def test_what_needs_writing_says_so(read_only):
    message = r"store: .*/store cannot be written \(Read-only file system\)"
    with pytest.raises(StageError, match=message):
        read_only.build(key_of("new"), must_not_run)
    with pytest.raises(StageError, match=message):
        read_only.open(read_only.find(key_of("closed")).digest)
    with pytest.raises(StageError, match=message):
        read_only.repair()
    with pytest.raises(StageError, match=message):
        read_only.gc(0, set())
