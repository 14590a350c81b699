"""Which files of a published model are its Hugging Face folder, and what is said where there is none."""

from __future__ import annotations

import pytest

from resources.errors import ConfigurationError
from resources.model_layout import wanted_files

FOLDER = {"config.json", "tokenizer.json", "model.safetensors"}


def below(folder):
    return {f"{folder}/{name}" for name in FOLDER}


def test_a_plain_folder_is_itself():
    assert wanted_files(FOLDER | {"README.md", "original/model.safetensors"}, "m") == {name: name for name in FOLDER}


@pytest.mark.parametrize("folder", ["mlflow_model_folder/data/model", "model", "v4/gpu/hf"])
def test_a_folder_below_is_found(folder):
    paths = below(folder) | {"MLmodel", "cpu-int4/genai_config.json", "cpu-int4/model.onnx", "cpu-int4/config.json"}
    assert wanted_files(paths, "m") == {name: f"{folder}/{name}" for name in FOLDER}


def test_tokenizer_and_settings_that_lie_beside_the_weights_are_taken():
    paths = {"data/model/model.safetensors", "data/config/config.json", "data/tokenizer/tokenizer.json"}
    assert wanted_files(paths, "m") == {path.rpartition("/")[2]: path for path in paths}
    paths = {"model/model.safetensors", "model/config.json", "components/tokenizer/tokenizer.json"}
    assert wanted_files(paths, "m") == {path.rpartition("/")[2]: path for path in paths}


def test_what_lies_with_the_weights_comes_first():
    paths = below("data/model") | {"data/tokenizer/tokenizer.json", "data/tokenizer/vocab.json"}
    wanted = wanted_files(paths, "m")
    assert wanted["tokenizer.json"] == "data/model/tokenizer.json"
    assert wanted["vocab.json"] == "data/tokenizer/vocab.json"


def test_code_and_pickles_are_left():
    paths = FOLDER | {"modeling_own.py", "pytorch_model.bin", "model.onnx"}
    assert set(wanted_files(paths, "m")) == FOLDER
    assert set(wanted_files(paths, "m", trust_remote_code=True)) == FOLDER | {"modeling_own.py"}


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (set(), "found no file"),
        ({"cpu-int4/genai_config.json", "cpu-int4/model.onnx"}, "an ONNX model.*Name the float model"),
        ({"config.json", "pytorch_model.bin"}, "pickled weights .pytorch_model.bin. and no safetensors"),
        ({"a.md", "model.safetensors"}, "2 files .a.md, model.safetensors."),
        (below("a/b") | below("c/d"), "2 folders with weights: a/b, c/d"),
    ],
)
def test_what_is_no_model_to_press_is_refused(paths, told):
    with pytest.raises(ConfigurationError, match=told):
        wanted_files(paths, "m")
