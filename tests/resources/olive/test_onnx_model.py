"""The run config that builds a graph is what was asked for, and nothing of it says where it was built."""

from pathlib import Path

import pytest

from resources.olive.onnx_model import PASSES, GraphOptions, builder_options, graph_run_config


def test_run_config_of_the_default_graph():
    assert graph_run_config(Path("awq"), GraphOptions("cpu", "int8", 4)) == {
        "workflow_id": "onnx_graph",
        "input_model": {"type": "HfModel", "model_path": "awq", "load_kwargs": {"trust_remote_code": False}},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "host": "local",
        "target": "local",
        "passes": {
            "graph": {
                "type": "OlivePressGenaiBuilder",
                "precision": "int4",
                "provider": "cpu",
                "options": {
                    "fuse_qkv": "false",
                    "hf_token": "false",
                    "accuracy_level": "4",
                    "algo_config": "rtn_last",
                    "hf_remote": "false",
                },
            }
        },
        "evaluate_input_model": False,
    }
    assert PASSES == {"OlivePressGenaiBuilder": "resources.olive.passes.genai_builder"}


@pytest.mark.parametrize(
    ("head", "option"),
    [
        ("int4", {"algo_config": "default"}),
        ("int8", {"algo_config": "rtn_last"}),
        ("float", {"nodes_to_exclude": "/lm_head/MatMul,/model/embed_tokens/Gather"}),
    ],
)
def test_head_decides_one_option_of_the_builder(head, option):
    shared = {"fuse_qkv": "false", "hf_token": "false", "accuracy_level": "1"}
    assert builder_options(GraphOptions("cpu", head, 1)) == shared | option


def test_provider_is_the_builders_and_not_olives_accelerator():
    config = graph_run_config(Path("awq"), GraphOptions("cuda", "int8", 4))
    assert config["passes"]["graph"]["provider"] == "cuda"
    assert config["systems"]["local"]["accelerators"][0]["device"] == "cpu"


def test_model_code_is_trusted_only_where_the_experiment_says_so():
    config = graph_run_config(Path("awq"), GraphOptions("cpu", "int8", 4), trust_remote_code=True)
    assert config["passes"]["graph"]["options"]["hf_remote"] == "true"
    assert config["input_model"]["load_kwargs"] == {"trust_remote_code": True}
