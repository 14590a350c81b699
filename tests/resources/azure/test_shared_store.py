"""The shared store: pushed once whoever pushes, fetched whole or not at all, whatever somebody put there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from resources.azure.shared_store import open_shared_store
from resources.errors import ConfigurationError, PressError, StageError
from resources.store.entry import Entry
from resources.store.keys import Key
from resources.store.remote import RemoteDamageError
from resources.store.store import Store
from tests.azure.faults import Fault
from tests.azure.folders import make_folder, manifest_of

ROOT = Path(__file__).resolve().parents[3]
LARGE = (20 << 20) + 1000  # three blocks
KEY = Key({"recipe": "onnx_model", "spec.head": "int8"})
PREFIX = "team/press"
BLOBS = r"^PUT .*/blobs/"


@pytest.fixture
def sas(workspace, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))


def opened(workspace, home, prefix=PREFIX):
    account_url, _, container = workspace.container_url.rpartition("/")
    return open_shared_store(account_url, container, prefix, Store(home))


def build(home, key=KEY, seed=0, large=0):
    """The entry of an artifact in the store under `home`."""
    return Store(home).build(key, lambda folder, _: make_folder(folder, seed, large) and None, {"host": "a"}).entry


def pushed(workspace, home, **options):
    entry = build(home, **options)
    opened(workspace, home).push(entry.key_id)
    return entry


def files_in(home):
    """Everything of the store under `home` but locks and its version."""
    store = home / "store"
    files = [path.relative_to(store) for path in store.rglob("*") if path.is_file()] if store.exists() else []
    return [path for path in files if path.parts[0] not in ("leases", "VERSION")]


def holds_nothing(home):
    """Whether no key, manifest, blob or tree is there, and nothing was written beside the store."""
    assert sorted(path.name for path in home.iterdir()) in ([], ["store"])
    return [path for path in files_in(home) if path.parts[0] != "scratch"] == []


def put(azure, workspace, name, data, **metadata):
    """Write over a blob, as somebody would who has the rights and does not use Olive Press."""
    sha256 = hashlib.sha256(data).hexdigest()
    storage = azure.storage(workspace)
    storage.upload_blob(f"{PREFIX}/{name}", data, overwrite=True, metadata={"sha256": sha256} | metadata)


def sent(azure, pattern=BLOBS):
    """The bytes that arrived, without the lists that make blobs of blocks."""
    requests = azure.traffic.requests(pattern)
    return sum(one.sent for one in requests if one.status == 201 and "comp=blocklist" not in one.line)


def test_another_machine_gets_the_same_entry_and_artifact(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a", large=LARGE)
    found = opened(workspace, tmp_path / "b").fetch(KEY.id)
    assert found == entry == Store(tmp_path / "b").find(KEY)
    assert manifest_of(Store(tmp_path / "b").open(entry.digest)).digest == entry.digest
    assert Store(tmp_path / "b").verify().damaged == []
    assert opened(workspace, tmp_path / "c").fetch(Key({"recipe": "other"}).id) is None
    names = {blob.name.removeprefix(f"{PREFIX}/").partition("/")[0] for blob in azure.storage(workspace).list_blobs()}
    assert names == {"VERSION", "blobs", "manifests", "keys"}


def test_what_is_there_is_not_moved_again(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a")
    size = Store(tmp_path / "a").manifest(entry.digest).bytes
    azure.traffic.forget()
    shared = opened(workspace, tmp_path / "a")
    assert (shared.push(KEY.id).moved, shared.push(KEY.id).bytes) == (0, size)
    assert sent(azure) == 0
    other = Key({"recipe": "onnx_model", "spec.head": "int4"})
    build(tmp_path / "a", other, seed=1)
    assert shared.push(other.id).moved == 1  # the file "seed"; the others are blobs already
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)
    azure.traffic.forget()
    assert Store(tmp_path / "b").restore(other.id, opened(workspace, tmp_path / "b")).moved == 1
    assert Store(tmp_path / "b").restore(other.id, opened(workspace, tmp_path / "b")).outcome == "reused"
    assert len(azure.traffic.requests(r"^GET .*/blobs/")) == 1


def test_every_byte_that_moves_is_told_as_it_moves(workspace, sas, tmp_path):
    build(tmp_path / "a", large=LARGE)
    for home, act in ((tmp_path / "a", "push"), (tmp_path / "b", "fetch")):
        told = []
        shared = opened(workspace, home)
        shared.watch(told.append)
        getattr(shared, act)(KEY.id)
        assert LARGE < sum(told) < LARGE + 5000 and len(told) > 4


def test_the_key_comes_last_and_the_manifest_before_it(azure, workspace, sas, tmp_path):
    pushed(workspace, tmp_path / "a", large=LARGE)
    kinds = [one.line.partition(f"{PREFIX}/")[2].partition("/")[0] for one in azure.traffic.requests("^PUT")]
    assert kinds[-3:] == ["blobs", "manifests", "keys"]


def test_an_artifact_without_key(workspace, sas, tmp_path):
    entry = build(tmp_path / "a")
    opened(workspace, tmp_path / "a").push_digest(entry.digest)
    shared = opened(workspace, tmp_path / "b")
    assert shared.fetch(KEY.id) is None
    assert shared.fetch_digest("0" * 64) is None
    assert shared.fetch_digest(entry.digest).digest == entry.digest
    assert manifest_of(Store(tmp_path / "b").open(entry.digest)).digest == entry.digest
    assert Store(tmp_path / "b").find(KEY) is None


def test_a_signed_in_identity_needs_no_sas(workspace, tmp_path):
    pushed(workspace, tmp_path / "a")
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)


def test_pushers_at_once_end_with_one_whole_artifact(workspace, sas, tmp_path):
    homes = [tmp_path / name for name in "abc"]
    for seed, home in enumerate(homes):
        build(home, seed=0 if seed < 2 else 1, large=LARGE)  # the third one made something else of the same key
    failures = []

    def push(home):
        try:
            opened(workspace, home).push(KEY.id)
        except PressError as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(home,)) for home in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = opened(workspace, tmp_path / "d").fetch(KEY.id)
    assert found.digest in {Store(home).find(KEY).digest for home in homes}
    assert manifest_of(Store(tmp_path / "d").open(found.digest)).digest == found.digest


def test_the_first_artifact_of_a_key_stays(azure, workspace, sas, tmp_path):
    first = pushed(workspace, tmp_path / "a")
    other = build(tmp_path / "b", seed=1)
    assert other.digest != first.digest
    azure.traffic.forget()
    told = opened(workspace, tmp_path / "b").push(KEY.id)
    assert told.moved == 0 and "another artifact is there" in told.note
    assert sent(azure) == 0
    assert opened(workspace, tmp_path / "c").fetch(KEY.id) == first


PUSH = """
import sys
from pathlib import Path
from resources.azure.shared_store import open_shared_store
from resources.store.store import Store
open_shared_store(*sys.argv[1:4], Store(Path(sys.argv[4]))).push(sys.argv[5])
"""
FETCH = PUSH.replace(".push(", ".fetch(")


def start(code, workspace, home):
    account_url, _, container = workspace.container_url.rpartition("/")
    arguments = [account_url, container, PREFIX, str(home), KEY.id]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, env=os.environ)


def kill_after(process, azure, pattern, count):
    """kill -9 once `count` requests of `pattern` succeeded."""
    deadline = time.monotonic() + 60
    while sum(one.status in (200, 201, 206) for one in azure.traffic.requests(pattern)) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_pusher_leaves_no_key_and_is_followed_by_one_that_goes_on(azure, workspace, sas, tmp_path):
    build(tmp_path / "a", large=LARGE)
    azure.traffic.add_faults(Fault(r"^PUT .*comp=block&", "delay", seconds=60, times=99, after=2))
    kill_after(start(PUSH, workspace, tmp_path / "a"), azure, r"^PUT .*comp=block&", 2)
    assert opened(workspace, tmp_path / "b").fetch(KEY.id) is None
    arrived = sent(azure)
    assert arrived > 1 << 23
    azure.traffic.forget()
    told = opened(workspace, tmp_path / "a").push(KEY.id)
    assert arrived + sent(azure) == told.bytes
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)


def test_a_pusher_killed_before_its_key_is_followed_by_one_that_sends_no_byte(azure, workspace, sas, tmp_path):
    build(tmp_path / "a")
    azure.traffic.add_faults(Fault(r"^PUT .*/keys/", "delay", seconds=60))
    kill_after(start(PUSH, workspace, tmp_path / "a"), azure, r"^PUT .*/manifests/", 1)
    assert opened(workspace, tmp_path / "b").fetch(KEY.id) is None
    assert opened(workspace, tmp_path / "a").push(KEY.id).moved == 0
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)


def test_a_killed_fetch_leaves_nothing_to_be_found_and_the_next_goes_on(azure, workspace, sas, tmp_path):
    pushed(workspace, tmp_path / "a", large=LARGE)
    (tmp_path / "b").mkdir()
    azure.traffic.forget()
    large = next(r for r in manifest_of(make_folder(tmp_path / "same", 0, LARGE)).files if r.size == LARGE).sha256
    azure.traffic.add_faults(Fault(rf"^GET .*/blobs/../{large}", "delay", seconds=60, times=99, after=2))
    kill_after(start(FETCH, workspace, tmp_path / "b"), azure, rf"^GET .*/blobs/../{large}", 2)
    assert {path.parts[0] for path in files_in(tmp_path / "b")} <= {"scratch", "temporary"}
    small = len(azure.traffic.requests(r"^GET .*/blobs/")) - len(azure.traffic.requests(large))
    azure.traffic.forget()
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)
    again = len(azure.traffic.requests(r"^GET .*/blobs/")) - len(azure.traffic.requests(rf"^GET .*{large}"))
    assert small + again <= 4  # the small files came once
    assert not list((tmp_path / "b/store/temporary").iterdir()) and not list((tmp_path / "b/store/scratch").iterdir())
    assert Store(tmp_path / "b").verify().damaged == []


def test_fetchers_at_once_bring_it_once(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a", large=LARGE)
    azure.traffic.forget()
    found = []
    fetchers = [
        threading.Thread(target=lambda: found.append(opened(workspace, tmp_path / "b").fetch(KEY.id))) for _ in range(3)
    ]
    for one in fetchers:
        one.start()
    for one in fetchers:
        one.join()
    assert found == [entry] * 3
    assert len(azure.traffic.requests(r"^GET .*/blobs/")) == 6 + 4  # pieces of the large file, and the small ones


@pytest.mark.parametrize("damage", ["other bytes", "shorter", "emptied", "deleted"])
def test_a_damaged_blob_is_named_and_nothing_of_it_is_taken(azure, workspace, sas, tmp_path, damage):
    entry = pushed(workspace, tmp_path / "a")
    record = next(one for one in Store(tmp_path / "a").manifest(entry.digest).files if one.path.endswith("adapter"))
    blob = f"blobs/{record.sha256[:2]}/{record.sha256}"
    if damage == "deleted":
        azure.storage(workspace).delete_blob(f"{PREFIX}/{blob}")
    else:
        data = {"other bytes": b"x" * record.size, "shorter": b"x", "emptied": b""}[damage]
        put(azure, workspace, blob, data, sha256=record.sha256)
    (tmp_path / "b").mkdir()
    shared = opened(workspace, tmp_path / "b")
    for _ in range(2):
        with pytest.raises(RemoteDamageError) as told:
            shared.fetch(KEY.id)
        assert f"{workspace.container_url}/{PREFIX}/{blob}" in str(told.value)
        assert "press store push" in str(told.value)
        assert holds_nothing(tmp_path / "b") and not list((tmp_path / "b/store/scratch").glob("*"))
    # Whoever still has the artifact is told as well, deletes the blob and pushes again.
    if damage != "deleted":
        with pytest.raises(RemoteDamageError, match=record.sha256):
            opened(workspace, tmp_path / "a").push(KEY.id, verify=True)
        azure.storage(workspace).delete_blob(f"{PREFIX}/{blob}")
    assert opened(workspace, tmp_path / "a").push(KEY.id).moved == record.size
    assert shared.fetch(KEY.id) == entry


def test_one_who_met_damage_and_computed_is_told_when_pushing(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a")
    record = Store(tmp_path / "a").manifest(entry.digest).files[0]
    blob = f"blobs/{record.sha256[:2]}/{record.sha256}"
    put(azure, workspace, blob, b"x" * record.size, sha256=record.sha256)
    shared = opened(workspace, tmp_path / "b")
    with pytest.raises(RemoteDamageError):
        shared.fetch(KEY.id)
    build(tmp_path / "b")
    with pytest.raises(RemoteDamageError, match=record.sha256):
        shared.push(KEY.id)


def test_one_who_met_a_lost_blob_and_computed_sends_it_again(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a")
    record = Store(tmp_path / "a").manifest(entry.digest).files[0]
    azure.storage(workspace).delete_blob(f"{PREFIX}/blobs/{record.sha256[:2]}/{record.sha256}")
    shared = opened(workspace, tmp_path / "b")
    with pytest.raises(RemoteDamageError, match="no such blob"):
        shared.fetch(KEY.id)
    build(tmp_path / "b")
    assert shared.push(KEY.id).moved == record.size
    assert opened(workspace, tmp_path / "c").fetch(KEY.id) == entry


@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_a_key_whose_artifact_nobody_here_can_mend_is_named(azure, workspace, sas, tmp_path, kind):
    entry = pushed(workspace, tmp_path / "a", seed=1)
    record = next(one for one in Store(tmp_path / "a").manifest(entry.digest).files if one.path == "seed")
    lost = {"blobs": f"blobs/{record.sha256[:2]}/{record.sha256}", "manifests": f"manifests/{entry.digest}.json"}[kind]
    azure.storage(workspace).delete_blob(f"{PREFIX}/{lost}")
    shared = opened(workspace, tmp_path / "b")
    with pytest.raises(RemoteDamageError, match=lost):
        shared.fetch(KEY.id)
    other = build(tmp_path / "b")
    with pytest.raises(RemoteDamageError, match=rf"keys/{KEY.id}.*{lost}"):
        shared.push(KEY.id)
    azure.storage(workspace).delete_blob(f"{PREFIX}/keys/{KEY.id}.json")
    shared.push(KEY.id)
    assert opened(workspace, tmp_path / "c").fetch(KEY.id) == other


def canonical(files):
    return json.dumps({"files": files}, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def file(path, data=b"x", **lies):
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} | lies


HOSTILE = {
    "parent": [file("../out")],
    "parent inside": [file("a/../../out")],
    "absolute": [file("/tmp/out")],
    "home": [file("~/../../out")],
    "backslashes": [file("..\\out")],
    "dot": [file("./out")],
    "empty part": [file("a//out")],
    "no name": [file("")],
    "NUL": [file("out\0")],
    "file and folder": [file("a"), file("a/b")],
    "twice": [file("a"), file("a")],
    "no file": [],
    "negative size": [file("a", size=-1)],
    "size as text": [file("a", size="1")],
    "size of another": [file("a", size=1 << 50)],
    "no sha256": [file("a", sha256="x")],
    "sha256 that leads out": [file("a", sha256="../" * 21 + "x")],
    "name that is too long": [file("a" * 5000)],
    "blob that is not there": [file("a", b"not there")],
    "extra field": [file("a") | {"target": "/etc/passwd"}],
}


@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_refused_and_writes_nothing(azure, workspace, sas, tmp_path, files):
    document = canonical(files)
    digest = hashlib.sha256(document).hexdigest()
    entry = Entry(KEY.id, dict(KEY.ingredients), digest, 1.0, "2026-01-01T00:00:00+00:00", {})
    x = hashlib.sha256(b"x").hexdigest()
    put(azure, workspace, f"blobs/{x[:2]}/{x}", b"x")
    put(azure, workspace, f"manifests/{digest}.json", document)
    put(azure, workspace, f"keys/{KEY.id}.json", entry.to_json())
    (tmp_path / "b").mkdir()
    for fetch in (
        opened(workspace, tmp_path / "b").fetch,
        lambda _: opened(workspace, tmp_path / "b").fetch_digest(digest),
    ):
        with pytest.raises(RemoteDamageError) as told:
            fetch(KEY.id)
        assert digest in str(told.value) or "blobs/" in str(told.value)
    assert holds_nothing(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def altered(entry, **fields):
    return Entry(**(vars(entry) | fields)).to_json()


OTHER = Key({"recipe": "lora_adapter"})
ENTRIES = {
    "of another key": lambda entry: altered(entry, key_id=OTHER.id, ingredients=dict(OTHER.ingredients)),
    "with ingredients of another key": lambda entry: altered(entry, ingredients=dict(OTHER.ingredients)),
    "with a digest that leads out": lambda entry: altered(entry, digest="../../../../out"),
    "with no number as seconds": lambda entry: altered(entry, seconds="1"),
    "with endless seconds": lambda entry: altered(entry, seconds=float("inf")),
    "with negative seconds": lambda entry: altered(entry, seconds=-1.0),
    "with a list as provenance": lambda entry: altered(entry, provenance=[]),
    "with numbers as inputs": lambda entry: altered(entry, provenance={"inputs": {"dataset": 1}}),
    "with no time": lambda entry: altered(entry, built_at=7),
    "without a true checksum": lambda entry: entry.to_json().replace(b'"host": "a"', b'"host": "b"'),
    "that is no JSON": lambda entry: b"{",
    "that is nested for ever": lambda entry: b"[" * 100_000,
    "that is empty": lambda entry: b"",
    "that is too large": lambda entry: b" " * (5 << 20),
}


@pytest.mark.parametrize("forge", ENTRIES.values(), ids=ENTRIES)
def test_a_hostile_entry_is_refused_and_writes_nothing(azure, workspace, sas, tmp_path, forge):
    entry = pushed(workspace, tmp_path / "a")
    put(azure, workspace, f"keys/{KEY.id}.json", forge(entry))
    (tmp_path / "b").mkdir()
    with pytest.raises(RemoteDamageError, match=rf"{PREFIX}/keys/{KEY.id}\.json.*Delete that blob.*press store push"):
        opened(workspace, tmp_path / "b").fetch(KEY.id)
    assert holds_nothing(tmp_path / "b")
    with pytest.raises(RemoteDamageError, match=KEY.id):
        opened(workspace, tmp_path / "a").push(KEY.id)
    azure.storage(workspace).delete_blob(f"{PREFIX}/keys/{KEY.id}.json")
    assert opened(workspace, tmp_path / "a").push(KEY.id).moved == 0
    assert opened(workspace, tmp_path / "b").fetch(KEY.id) == entry


def test_a_manifest_of_another_digest_is_refused(azure, workspace, sas, tmp_path):
    entry = pushed(workspace, tmp_path / "a")
    other = pushed(workspace, tmp_path / "a", key=OTHER, seed=1)
    name = f"manifests/{entry.digest}.json"
    put(azure, workspace, name, Store(tmp_path / "a").manifest(other.digest).to_json())
    with pytest.raises(RemoteDamageError, match=name):
        opened(workspace, tmp_path / "b").fetch(KEY.id)
    azure.storage(workspace).delete_blob(f"{PREFIX}/{name}")
    with pytest.raises(RemoteDamageError, match=name):
        opened(workspace, tmp_path / "b").fetch(KEY.id)
    assert opened(workspace, tmp_path / "a").push(KEY.id).moved == 0
    assert opened(workspace, tmp_path / "b").fetch(KEY.id) == entry


def test_what_another_version_wrote_is_refused(azure, workspace, sas, tmp_path):
    put(azure, workspace, "VERSION", b"2\n")
    build(tmp_path / "a")
    for refused in (lambda: opened(workspace, tmp_path / "a").push(KEY.id), opened(workspace, tmp_path / "b").check):
        with pytest.raises(ConfigurationError, match="VERSION"):
            refused()


def told_by(action):
    """What a user sees of the failure, and everything behind it."""
    with pytest.raises(PressError) as caught:
        action()
    return caught.value, "".join(traceback.format_exception(caught.value))


def test_an_ended_sas_is_told_before_anything_is_asked(azure, workspace, tmp_path, monkeypatch):
    workspace.sas_seconds = -60
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))
    azure.traffic.forget()
    error, told = told_by(opened(workspace, tmp_path).check)
    assert error.exit_code == 2 and "AZURE_STORAGE_SAS_TOKEN" in str(error) and "ended at" in str(error)
    assert azure.traffic.requests("blob.core") == []
    assert not any(secret in told for secret in azure.secrets)


def test_a_sas_that_ends_on_the_way_is_told_and_a_new_one_goes_on(azure, workspace, tmp_path, monkeypatch):
    build(tmp_path / "a", large=LARGE)
    workspace.sas_seconds = 4
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))
    azure.traffic.add_faults(Fault(r"^PUT .*comp=block&", "delay", seconds=5, after=1))
    error, told = told_by(lambda: opened(workspace, tmp_path / "a").push(KEY.id))
    assert "ended at" in str(error) and "What arrived is kept" in str(error)
    assert not any(secret in told for secret in azure.secrets)
    arrived = sent(azure)
    assert arrived > 0 and opened_with_new_sas(workspace, monkeypatch, tmp_path / "b").fetch(KEY.id) is None
    azure.traffic.forget()
    total = opened(workspace, tmp_path / "a").push(KEY.id).bytes
    assert arrived + sent(azure) == total


def opened_with_new_sas(workspace, monkeypatch, home):
    workspace.sas_seconds = 3600
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("rcw"))
    return opened(workspace, home)


def test_a_sas_that_may_only_read_fetches_and_says_what_pushing_needs(workspace, tmp_path, sas, monkeypatch):
    entry = pushed(workspace, tmp_path / "a")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", workspace.sas("r"))
    shared = opened(workspace, tmp_path / "b")
    shared.check()
    assert shared.fetch(KEY.id) == entry
    error, _ = told_by(lambda: shared.check(push=True))
    assert error.exit_code == 2 and "rights r, c and w" in str(error)


@pytest.mark.parametrize("token", ["https://a.blob.core.windows.net/press?sp=r&sig=c2VjcmV0", "c2VjcmV0"])
def test_something_that_is_no_sas_is_told_and_not_shown(azure, workspace, tmp_path, monkeypatch, token):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    error, told = told_by(opened(workspace, tmp_path).check)
    assert error.exit_code == 2 and "no SAS token" in str(error) and "c2VjcmV0" not in told


def test_who_is_not_signed_in_is_told(azure, workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    error, told = told_by(opened(workspace, tmp_path).check)
    assert error.exit_code == 2 and "signing in failed" in str(error)
    assert "az login" in str(error) and "AZURE_STORAGE_SAS_TOKEN" in str(error)
    assert not any(secret in told for secret in azure.secrets)


def test_no_rights_no_container_and_no_account_are_told(azure, workspace, sas, tmp_path, monkeypatch):
    azure.traffic.add_faults(Fault(r"^PUT .*VERSION", status=403, code="AuthorizationPermissionMismatch", times=9))
    error, _ = told_by(lambda: opened(workspace, tmp_path).check(push=True))
    assert error.exit_code == 2 and "403" in str(error) and "rights r, c and w" in str(error)
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    error, _ = told_by(lambda: opened(workspace, tmp_path).check(push=True))
    assert "Storage Blob Data Contributor" in str(error)
    account_url = workspace.container_url.rpartition("/")[0]
    error, _ = told_by(open_shared_store(account_url, "no-such-container", "", Store(tmp_path)).check)
    assert error.exit_code == 2 and "404 ContainerNotFound" in str(error) and "store.remote" in str(error)


def test_a_refusal_in_the_middle_is_told_and_the_next_push_goes_on(azure, workspace, sas, tmp_path):
    build(tmp_path / "a", large=LARGE)
    shared = opened(workspace, tmp_path / "a")
    azure.traffic.add_faults(Fault(r"^PUT .*comp=block&", status=403, code="AuthorizationFailure", times=99, after=1))
    error, _ = told_by(lambda: shared.push(KEY.id))
    assert isinstance(error, StageError) and not isinstance(error, RemoteDamageError)
    arrived = sent(azure)
    azure.traffic.forget()
    total = shared.push(KEY.id).bytes
    assert arrived + sent(azure) == total
    assert opened(workspace, tmp_path / "b").fetch(KEY.id)
