"""What a graph can be built for: providers, their devices, and the precisions that the model builder writes for each.

The model builder of ONNX Runtime GenAI 0.18 takes cpu, cuda, dml, webgpu and NvTensorRtRtx, and builds more pairs of
precision and provider than run: for float32 on cuda and dml it writes attention without a key-value cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Provider = Literal["cpu", "cuda", "dml", "webgpu"]
Device = Literal["cpu", "gpu", "npu"]
Precision = Literal["int4", "int8", "fp16", "fp32"]
FLOAT_PRECISIONS = ("fp16", "fp32")


@dataclass(frozen=True)
class Target:
    """A provider: the device it runs on, the precisions a graph for it may have, its name in ONNX Runtime."""

    device: Device
    precisions: tuple[Precision, ...]
    onnxruntime: str


TARGETS: Mapping[str, Target] = {
    "cpu": Target("cpu", ("int4", "int8", "fp32"), "CPUExecutionProvider"),
    "cuda": Target("gpu", ("int4", "int8", "fp16"), "CUDAExecutionProvider"),
    "dml": Target("gpu", ("int4", "int8", "fp16"), "DmlExecutionProvider"),
    "webgpu": Target("gpu", ("int4", "int8", "fp16", "fp32"), "WebGpuExecutionProvider"),
}

# Providers that Olive or the builder knows, and what stands between them and a graph of ours.
NOT_BUILT: Mapping[str, str] = {
    "qnn": (
        "a graph for QNN needs static shapes, quantized activations and a context compiled by Qualcomm's AI Engine "
        "Direct (onnxruntime-qnn), and the model builder makes none of them"
    ),
    "nvtensorrtrtx": (
        "for TensorRT RTX the model builder writes DequantizeLinear nodes, which hold other codes than the awq model's "
        "and take no LoRA inputs"
    ),
    "vitisai": "a graph for VitisAI needs AMD's Quark and Ryzen AI software, and the model builder has no such target",
    "openvino": (
        "a graph for OpenVINO needs openvino and optimum-intel, which write OpenVINO's own format, and the model "
        "builder has no such target"
    ),
    "tensorrt": "the model builder has no such target",
    "migraphx": "the model builder has no such target",
    "coreml": "the model builder has no such target",
}
OTHER_NAMES = {"directml": "dml", "trt-rtx": "nvtensorrtrtx", "tensorrtrtx": "nvtensorrtrtx"}


def provider_called(name: str) -> str:
    """The provider that `name` means: ours, or ONNX Runtime's (DmlExecutionProvider); a ValueError gives the reason."""
    plain = name.lower().removesuffix("executionprovider")
    provider = OTHER_NAMES.get(plain, plain)
    if provider in TARGETS:
        return provider
    reason = f"; {NOT_BUILT[provider]}" if provider in NOT_BUILT else ""
    raise ValueError(f"{', '.join(TARGETS)}{reason}")


def check_device(provider: str, device: str) -> None:
    """Raise a ValueError, which says what is accepted, where a graph for `provider` does not run on `device`."""
    runs_on = TARGETS[provider].device
    if device != runs_on:
        raise ValueError(f"{runs_on}, on which provider {provider} runs")


def check_precision(provider: str, precision: str) -> None:
    """Raise a ValueError, which says what is accepted, where no graph of `precision` for `provider` runs."""
    accepted = TARGETS[provider].precisions
    if precision not in accepted:
        others = ", ".join(name for name, target in TARGETS.items() if precision in target.precisions)
        raise ValueError(f"{', '.join(accepted)} with provider {provider}; {precision} goes with {others}")


def check_float(precision: str, name: str, value: object) -> None:
    """Raise a ValueError where `value` of `name` is for codes, which a graph of a float `precision` does not have."""
    accepted = {"head": "float", "accuracy_level": 1}[name]
    if precision in FLOAT_PRECISIONS and value != accepted:
        raise ValueError(f"{accepted} with precision {precision}, whose graph holds no codes")
