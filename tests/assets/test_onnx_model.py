"""The onnx_model folder: complete, the same bytes wherever it is built, and new adapter weights change one file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from assets.experiment import BaseModelSpec, DatasetSpec, Experiment, OnnxModelSpec, RegisteredModelSpec
from assets.fingerprint import implementing_modules
from assets.onnx_graph import ExactOnnxGraph, OnnxGraph
from assets.onnx_model import OnnxModel
from assets.stage import Attempt
from resources.olive.graft import graft_adapter
from resources.progress import RecordedProgress
from resources.store.digests import sha256_of
from tests.onnx_folders import IDS, onnx_logits, quantize, save_random_adapter, torch_logits

TARGETS = ("q_proj", "v_proj", "gate_proj")


def open_experiment(root, **spec):
    return Experiment(
        name="tiny",
        root=root,
        base_model=BaseModelSpec(folder="base"),
        dataset=DatasetSpec(path="rows.jsonl"),
        onnx_model=OnnxModelSpec(**({"adapter": "travel"} | spec)),
        registered_model=RegisteredModelSpec(name="tiny"),
    )


def produce(recipe, folder, **inputs):
    folder.mkdir(parents=True)
    recipe.produce(Attempt(folder, folder.parent / "scratch", inputs, RecordedProgress()))
    return folder


def digests(folder):
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tiny_llama, tmp_path_factory):
    """All that the stage makes of one awq model and one adapter."""
    root = tmp_path_factory.mktemp("made")
    experiment = open_experiment(root)
    awq_model = quantize(tiny_llama, root)
    adapter = save_random_adapter(awq_model, root / "lora_adapter", TARGETS)
    graph = produce(OnnxGraph(experiment), root / "onnx_graph", awq_model=awq_model)
    model = produce(
        OnnxModel(experiment), root / "onnx_model", awq_model=awq_model, lora_adapter=adapter, onnx_graph=graph
    )
    return SimpleNamespace(
        root=root, experiment=experiment, awq_model=awq_model, adapter=adapter, graph=graph, model=model
    )


def test_folder_is_what_genai_opens(made):
    import onnxruntime_genai as og

    names = set(digests(made.model))
    assert names >= {"model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "chat_template.jinja"}
    assert "adapters/travel.onnx_adapter" in names
    model = og.Model(str(made.model))
    tokenizer = og.Tokenizer(model)
    prompt = tokenizer.apply_chat_template('[{"role": "user", "content": "Hi"}]', add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_genai_gives_the_logits_of_a_whole_sequence(made):
    import onnxruntime_genai as og

    model = og.Model(str(made.model))
    adapters = og.Adapters(model)
    adapters.load(str(made.model / "adapters" / "travel.onnx_adapter"), "travel")
    generator = og.Generator(model, og.GeneratorParams(model))
    generator.set_active_adapter(adapters, "travel")
    generator.append_tokens(np.array(IDS, np.int32))
    assert np.abs(np.array(generator.get_output("logits")) - onnx_logits(made.model, IDS, "travel")).max() < 1e-4


def test_folder_is_the_same_bytes_in_another_place_and_process(made, tmp_path):
    request = {name: str(getattr(made, name)) for name in ("awq_model", "adapter")} | {"root": str(tmp_path / "other")}
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland"}
    command = [sys.executable, "-m", "tests.assets.test_onnx_model", json.dumps(request)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert digests(tmp_path / "other" / "onnx_graph") == digests(made.graph)
    assert digests(tmp_path / "other" / "onnx_model") == digests(made.model)


def test_no_file_names_a_place(made):
    places = (str(made.root).encode(), str(Path.cwd()).encode(), b"unfused-", b"builder-", b".olive")
    for path in (path for path in made.model.rglob("*") if path.is_file()):
        assert not [place for place in places if place in path.read_bytes()], path.name


def test_new_adapter_weights_change_the_adapter_file_only(made, tmp_path):
    adapter = save_random_adapter(made.awq_model, tmp_path / "lora_adapter", TARGETS, r=2, seed=9)
    inputs = {"awq_model": made.awq_model, "lora_adapter": adapter, "onnx_graph": made.graph}
    changed = produce(OnnxModel(made.experiment), tmp_path / "onnx_model", **inputs)
    before, after = digests(made.model), digests(changed)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "adapters/travel.onnx_adapter"
    }


def test_part_keeps_its_key_whatever_the_adapter_is_called(made, tmp_path):
    key = OnnxGraph(made.experiment).key({"awq_model": "a"})
    assert OnnxGraph(open_experiment(tmp_path, adapter="cooking")).key({"awq_model": "a"}).id == key.id
    assert OnnxGraph(open_experiment(tmp_path, head="int4")).key({"awq_model": "a"}).id != key.id
    assert OnnxGraph(made.experiment).key({"awq_model": "b"}).id != key.id


def test_for_cuda_each_answer_has_a_graph_of_its_own_over_the_same_weights(made, tmp_path):
    experiment = open_experiment(tmp_path, provider="cuda")
    graph = produce(OnnxGraph(experiment), tmp_path / "onnx_graph", awq_model=made.awq_model)
    inputs = {"awq_model": made.awq_model, "lora_adapter": made.adapter, "onnx_graph": graph}
    folder = produce(OnnxModel(experiment), tmp_path / "onnx_model", **inputs)
    names = set(digests(folder)) - set(digests(made.model))
    assert names == {"base.onnx", "model-travel.onnx", "model-travel.onnx.data"}
    assert digests(folder)["base.onnx"] == digests(graph)["model.onnx"]
    again = produce(OnnxModel(experiment), tmp_path / "again" / "onnx_model", **inputs)
    assert digests(again) == digests(folder)


def test_graph_is_built_again_only_for_code_that_builds_it():
    modules = implementing_modules(OnnxGraph.__module__)
    assert "resources.olive.passes.genai_builder" in modules
    assert "resources.olive.graft" not in modules


def test_exact_part_does_not_depend_on_how_the_model_is_shipped(tmp_path):
    shipped = [open_experiment(tmp_path), open_experiment(tmp_path, head="int4", accuracy_level=1, provider="cuda")]
    assert len({ExactOnnxGraph(experiment).key({"awq_model": "a"}).id for experiment in shipped}) == 1


def test_exact_part_with_the_adapter_gives_the_logits_of_pytorch(made, tmp_path):
    graph = produce(ExactOnnxGraph(made.experiment), tmp_path / "onnx_graph_exact", awq_model=made.awq_model)
    graft_adapter(graph, made.adapter, tmp_path / "grafted", "travel")
    for adapter, name in ((made.adapter, "travel"), (None, None)):
        expected, found = torch_logits(made.awq_model, IDS, adapter), onnx_logits(tmp_path / "grafted", IDS, name)
        assert (expected.argmax(-1) == found.argmax(-1)).all()
        assert np.abs(expected - found).max() < 1e-4


def test_generation_is_as_long_as_the_context_and_capped(tiny_llama, made, tmp_path):
    search = json.loads((made.model / "genai_config.json").read_text())["search"]
    assert search["max_length"] == 512  # the tiny model's context
    long = tmp_path / "long"
    long.mkdir()
    for file in made.awq_model.iterdir():
        (long / file.name).write_bytes(file.read_bytes())
    config = json.loads((long / "config.json").read_text()) | {"max_position_embeddings": 16384}
    (long / "config.json").write_text(json.dumps(config))
    graph = produce(OnnxGraph(made.experiment), tmp_path / "graph", awq_model=long)
    found = json.loads((graph / "genai_config.json").read_text())
    assert (found["model"]["context_length"], found["search"]["max_length"]) == (16384, 2048)


def test_decoding_on_a_cpu_takes_all_physical_cores(made, tmp_path):
    import psutil

    count = "import os, sys; import onnxruntime_genai as og; model = og.Model(sys.argv[1]); "
    count += "print(len(os.listdir('/proc/self/task')))"
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not list threads")
    shutil.copytree(made.model, tmp_path / "one")
    file = tmp_path / "one" / "genai_config.json"
    config = json.loads(file.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = 1
    file.write_text(json.dumps(config))
    threads = {
        folder: int(subprocess.run([sys.executable, "-c", count, folder], capture_output=True, check=True).stdout)
        for folder in (made.model, tmp_path / "one")
    }
    assert threads[made.model] - threads[tmp_path / "one"] == psutil.cpu_count(logical=False) - 1


def test_facts_tell_sizes_layers_and_options(made):
    facts = OnnxModel(made.experiment).facts(made.model)
    sizes = {row["file"]: row["bytes"] for row in facts.tables["files"]}
    assert facts.numbers == {
        "bytes": sum(sizes.values()),
        "data_bytes": sizes["model.onnx.data"],
        "adapter_bytes": sizes["adapters/travel.onnx_adapter"],
        "quantized_layers": 14,
        "grafted_layers": 6,
    }
    assert facts.texts["options"] == (
        "Built for cpu: layers int4, head int8, embedding int8, accuracy level 4, activations float32. "
        "LoRA inputs on q_proj (2), v_proj (2), gate_proj (2)."
    )
    assert OnnxGraph(made.experiment).facts(made.graph).numbers["quantized_layers"] == 14


def test_the_parts_files_stay_as_they_were(made):
    assert "grafted" not in json.loads((made.graph / "graph.json").read_text())


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    there, built_from = Path(asked["root"]), {"awq_model": Path(asked["awq_model"])}
    built = produce(OnnxGraph(open_experiment(there)), there / "onnx_graph", **built_from)
    produce(
        OnnxModel(open_experiment(there)),
        there / "onnx_model",
        lora_adapter=Path(asked["adapter"]),
        onnx_graph=built,
        **built_from,
    )
