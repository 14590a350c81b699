"""Manifests: one canonical form, and no path that leads out of the artifact."""

from __future__ import annotations

import json

import pytest

from resources.errors import ConfigurationError
from resources.store.manifest import FileRecord, Manifest

SHA = "ab" * 32


def record(path: str, size: int = 1) -> FileRecord:
    return FileRecord(path, size, SHA)


def test_order_of_the_files_makes_no_difference():
    one, other = Manifest((record("a"), record("b/c"))), Manifest((record("b/c"), record("a")))
    assert one == other
    assert one.digest == other.digest


@pytest.mark.parametrize("changed", [record("b"), FileRecord("a", 2, SHA), FileRecord("a", 1, "cd" * 32)])
def test_path_size_and_bytes_each_change_the_digest(changed):
    assert Manifest((record("a"),)).digest != Manifest((changed,)).digest


def test_it_comes_back_from_its_json():
    manifest = Manifest((record("tokenizer/über.json", 7), record("model.onnx", 35)))
    back = Manifest.from_json(manifest.to_json())
    assert back == manifest
    assert back.bytes == 42


HOSTILE_PATHS = [
    "../outside", "a/../../outside", "/etc/passwd", "a//b", "a/", "", ".", "./a", "a\\b", "..\\outside", "a\0b",
    "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_path_that_leads_out_is_refused(path):
    with pytest.raises(ConfigurationError, match="manifest"):
        Manifest((record(path),))
    with pytest.raises(ConfigurationError, match="manifest"):
        Manifest.from_json(json.dumps({"files": [{"path": path, "sha256": SHA, "size": 1}]}).encode())


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b")])
def test_two_files_in_one_place_are_refused(paths):
    with pytest.raises(ConfigurationError):
        Manifest(tuple(record(path) for path in paths))


GOOD = Manifest((record("a"), record("b"))).to_json()
UNREADABLE = {
    "empty": b"",
    "half": GOOD[: len(GOOD) // 2],
    "not UTF-8": b"\xff" + GOOD,
    "a list": b"[]",
    "other files": b'{"files":7}',
    "a bare name": b'{"files":["a"]}',
    "size as text": GOOD.replace(b'"size":1', b'"size":"1"'),
    "size true": GOOD.replace(b'"size":1', b'"size":true'),
    "negative size": GOOD.replace(b'"size":1', b'"size":-1'),
    "short sha256": GOOD.replace(SHA.encode(), b"abab"),
    "sha256 that is a path": GOOD.replace(SHA.encode(), b"../" * 21 + b"a"),
    "spaces": GOOD.replace(b",", b", "),
    "unsorted": json.dumps({"files": list(reversed(json.loads(GOOD)["files"]))}, separators=(",", ":")).encode(),
    "one field more": GOOD.replace(b'"size":1', b'"mode":7,"size":1'),
    "the same name twice": GOOD.replace(b'"size":1', b'"size":1,"size":1'),
    "nested without end": b'{"files":' + b"[" * 100_000,
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_anything_but_canonical_json_is_refused(name):
    with pytest.raises(ConfigurationError):
        Manifest.from_json(UNREADABLE[name])
