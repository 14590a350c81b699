"""Lists of Olive passes: refused with place, found and accepted before anything runs, or accepted by Olive."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resources.errors import ConfigurationError
from resources.olive.pass_list import check_list, check_parameters, pass_tools

PLACE = "mine.yaml: {}.olive_passes"


def seen(kind, *passes, provider="CPUExecutionProvider"):
    """What is refused without asking Olive."""
    with pytest.raises(ConfigurationError) as refused:
        check_list(passes, kind, PLACE.format(kind), provider)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "olive_pass", "told"),
    [
        ("awq_model", {"type": "Rtm"}, ["type: found 'Rtm'", "Gptq, KQuant", "OlivePressAwq", "Rtn"]),
        ("awq_model", {"type": "OnnxPeepholeOptimizer"}, ["OnnxPeepholeOptimizer: awq_model runs passes on a Hugging"]),
        ("onnx_model", {"type": "Rtn"}, ["Rtn: onnx_model runs passes on an ONNX graph", "GraphSurgeries"]),
        ("onnx_model", {"type": "OlivePressAwq"}, ["OlivePressAwq"]),
        ("awq_model", {"type": "LoRA"}, ["LoRA: it trains an adapter"]),
        ("awq_model", {"type": "GptqModel"}, ["GptqModel: it needs gptqmodel, optimum, which are not installed"]),
        ("awq_model", {"type": "SpinQuant"}, ["SpinQuant: it calibrates on a data set that it downloads"]),
        ("onnx_model", {"type": "ModelBuilder"}, ["ModelBuilder: it makes a graph of a PyTorch model"]),
        (
            "onnx_model",
            {"type": "EPContextBinaryGenerator"},
            ["it is for QNNExecutionProvider, and the model is for CPU"],
        ),
        ("onnx_model", {"type": "OnnxStaticQuantization"}, ["it needs a data set"]),
        ("awq_model", {"type": "OlivePressAwq", "bits": 8}, ["[1].bits: found 8", "the fields of awq_model"]),
    ],
)
def test_what_a_stage_cannot_run_is_told_with_the_reason(kind, olive_pass, told):
    first = {"awq_model": "QuaRot", "onnx_model": "GraphSurgeries"}[kind]
    message = seen(kind, {"type": first}, olive_pass)
    assert message.startswith(f"mine.yaml: {kind}.olive_passes[1].")
    for words in told:
        assert words in message


def test_passes_for_the_provider_are_accepted_and_in_any_case():
    check_list([{"type": "ortmixedprecision"}], "onnx_model", "here", "CUDAExecutionProvider")
    assert "it is for CUDAExecutionProvider, DmlExecutionProvider" in seen("onnx_model", {"type": "OrtMixedPrecision"})
    check_list([{"type": "quarot"}, {"type": "OlivePressAwq"}], "awq_model", "here")


MISTAKES = {
    "awq_model": [
        ({"type": "Rtn", "bitz": 3}, ".bitz: found an unknown parameter; accepted: bits, embeds, group_size"),
        ({"type": "Rtn", "bits": "four"}, ".bits: found 'four'; accepted: Input should be 2, 4, 8"),
        ({"type": "Rtn", "bits": "SEARCHABLE_VALUES"}, ".bits: found 'SEARCHABLE_VALUES'; accepted: one value"),
        ({"type": "Gptq", "data_config": {"user_script": "x.py"}}, "accepted: calibration, the samples of awq_model"),
        ({"type": "Rtn", "overrides": {"a": {"user_script": "x.py"}}}, ".overrides.a.user_script: found 'x.py'"),
        (
            {"type": "CaptureSplitInfo", "cost_model": "/etc/passwd"},
            ".cost_model: found '/etc/passwd'; accepted: nothing",
        ),
        ({"type": "QuaRot", "host": "elsewhere"}, ".host: found 'elsewhere'"),
        ({"type": "SelectiveMixedPrecision"}, "[7]: found {}; accepted: parameters that Olive"),
    ],
    "onnx_model": [
        ({"type": "GraphSurgeries"}, ".surgeries: found nothing; accepted: a value"),
        ({"type": "GraphSurgeries", "surgeries": [{"surgeon": "Barber"}]}, ".surgeries[0].surgeon: found 'Barber'"),
        (
            {"type": "GraphSurgeries", "surgeries": [{"surgeon": "RenameInputs", "old_names": ["a"]}]},
            ".surgeries[0].new_names: found nothing",
        ),
        (
            {"type": "OnnxFloatToFloat16", "op_block_list": "x"},
            ".op_block_list: found 'x'; accepted: Input should be a",
        ),
        ({"type": "OrtTransformersOptimization", "float16": True}, "CPUExecutionProvider does not support float16"),
    ],
}


@pytest.mark.parametrize("kind", ["awq_model", "onnx_model"])
def test_parameters_are_refused_as_olive_would_and_all_at_once(kind):
    passes = [olive_pass for olive_pass, _ in MISTAKES[kind]]
    with pytest.raises(ConfigurationError) as refused:
        check_parameters(passes, kind, PLACE.format(kind), "cpu", "CPUExecutionProvider")
    for index, (_, told) in enumerate(MISTAKES[kind]):
        assert f"olive_passes[{index}]" in str(refused.value)
        assert told in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        (
            "awq_model",
            [
                {"type": "QuaRot"},
                {"type": "SelectiveMixedPrecision", "algorithm": "k_quant_mixed"},
                {"type": "AutoClip", "data_config": "calibration"},
                {"type": "Gptq", "bits": 4, "group_size": 32},
            ],
        ),
        ("onnx_model", [{"type": "OnnxPeepholeOptimizer"}, {"type": "MatMulNBitsToQDQ"}]),
    ],
)
def test_a_workflow_of_olive_is_accepted(kind, passes):
    check_list(passes, kind, "here")
    check_parameters(passes, kind, "here", "cpu", "CPUExecutionProvider")


def test_looking_at_names_imports_neither_olive_nor_torch():
    code = (
        "import sys\n"
        "from resources.olive.pass_list import check_list, pass_tools\n"
        "check_list([{'type': 'OnnxPeepholeOptimizer'}], 'onnx_model', 'here'); pass_tools([{'type': 'Rtn'}])\n"
        "assert not {'olive', 'torch', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_pass_needs_is_a_tool_of_its_stage():
    assert list(pass_tools([{"type": "OnnxPeepholeOptimizer"}])) == ["onnxscript"]
    assert pass_tools([{"type": "Rtn"}]) == {}
