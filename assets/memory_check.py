"""Whether what a stage needs fits into memory, asked in its process before it loads anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assets.experiment import Experiment
from resources.errors import StageError
from resources.gpu import Device
from resources.machine_limits import memory
from resources.memory_need import (
    AwqWork,
    LoraWork,
    ModelShape,
    Need,
    awq_gpu_need,
    awq_host_need,
    bfloat16_need,
    float32_need,
    largest_that_fits,
    lora_gpu_need,
    lora_host_need,
    module_gpu_need,
)
from resources.olive.awq_model import batch_size

MODELS = {"awq_model": "base_model", "lora_adapter": "awq_model", "eval_report": "awq_model"}  # stage → input
BYTES_A_TOKEN = 3  # at least, of text in which most words are one or two tokens
TEMPLATE_TOKENS = 64  # what a chat template adds to a row


@dataclass(frozen=True)
class Memory:
    """Memory that a stage can have. free, whole: bytes; place: whose it is, as an error names it."""

    free: int
    whole: int
    place: str


def check_memory(stage: str, experiment: Experiment, inputs: Mapping[str, Path], device: Device) -> None:
    """Raise a StageError where what `stage` needs does not fit; of a model that is not known nothing is said."""
    if stage not in MODELS:
        return
    check_host_memory(stage, experiment, inputs, device.name, Memory(*memory(), "the machine's memory"))
    if device.name == "cuda":
        import torch

        place = f"GPU memory ({device.gpus[0].name})"
        check_gpu_memory(stage, experiment, inputs, Memory(*torch.cuda.mem_get_info(), place))


def check_gpu_memory(stage: str, experiment: Experiment, inputs: Mapping[str, Path], room: Memory) -> None:
    """Raise a StageError where the GPU's memory does not suffice for `stage`, as far as is known of the model."""
    shape = _shape(stage, inputs)
    if shape is None:
        return
    if stage == "awq_model":
        work = awq_work(experiment, "cuda")
        _check(stage, awq_gpu_need(shape, work, room.whole), room, _awq_remedies(shape, work, room))
    elif stage == "lora_adapter":
        work = lora_work(experiment, inputs)
        _check(stage, lora_gpu_need(shape, work), room, _lora_remedies(shape, work, room, lora_gpu_need))
    else:
        _check(stage, module_gpu_need(shape), room, [])


def check_host_memory(
    stage: str, experiment: Experiment, inputs: Mapping[str, Path], device: str, room: Memory
) -> None:
    """Raise a StageError where the machine's memory surely does not suffice, and it would end in a kill."""
    shape = _shape(stage, inputs)
    if shape is None:
        return
    if stage == "awq_model":
        _check(stage, awq_host_need(shape, awq_work(experiment, device)), room, [])
    elif stage == "lora_adapter" and device == "cuda":
        _check(stage, bfloat16_need(shape), room, [])
    elif stage == "lora_adapter":
        work = lora_work(experiment, inputs)
        _check(stage, lora_host_need(shape, work), room, _lora_remedies(shape, work, room, lora_host_need))
    else:
        _check(stage, float32_need(shape), room, [])


def awq_work(experiment: Experiment, device: str) -> AwqWork:
    spec = experiment.awq_model
    return AwqWork(spec.samples, spec.tokens, batch_size(device, spec.tokens), spec.measure_samples)


def lora_work(experiment: Experiment, inputs: Mapping[str, Path]) -> LoraWork:
    spec = experiment.lora_adapter
    tokens = min(spec.max_tokens, _longest_row(inputs["dataset"] / "train.jsonl"))
    return LoraWork(spec.r, spec.target_modules, spec.batch_size, tokens)


def _shape(stage: str, inputs: Mapping[str, Path]) -> ModelShape | None:
    file = inputs[MODELS[stage]] / "config.json" if stage in MODELS else None
    if file is None or not file.is_file():
        return None
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # the stage says what is wrong with it
        return None
    return ModelShape.of(config) if isinstance(config, dict) else None


def _longest_row(file: Path) -> int:
    """Tokens of the longest row, of which only the bytes are known before there is a tokenizer."""
    return max((len(line) for line in file.read_bytes().splitlines()), default=0) // BYTES_A_TOKEN + TEMPLATE_TOKENS


def _awq_remedies(shape: ModelShape, work: AwqWork, room: Memory) -> list[str]:
    remedies: list[str] = []
    for name, least in (("samples", 1), ("tokens", 16)):
        now = getattr(work, name)

        def need(value: int, name: str = name) -> Need:
            lowered: Any = {name: value}
            if name == "tokens":
                lowered["at_once"] = batch_size("cuda", value)
            return awq_gpu_need(shape, replace(work, **lowered), room.whole)

        if (value := largest_that_fits(now, least, need, room.free)) is not None:
            remedies.append(f"awq_model.{name}: {value}")
    return remedies


def _lora_remedies(shape: ModelShape, work: LoraWork, room: Memory, needed: Any) -> list[str]:
    remedies: list[str] = []
    for name, field, least in (("batch_size", "batch_size", 1), ("max_tokens", "tokens", 16), ("r", "r", 1)):

        def need(value: int, field: str = field) -> Need:
            lowered: Any = {field: value}
            return needed(shape, replace(work, **lowered))

        if (value := largest_that_fits(getattr(work, field), least, need, room.free)) is not None:
            remedies.append(f"lora_adapter.{name}: {value}")
    return remedies


def _check(stage: str, need: Need, room: Memory, remedies: list[str]) -> None:
    if need.bytes <= room.free:
        return
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in need.parts.items())
    lacking = (
        f"it needs about {_gb(need.bytes)} of {room.place} ({parts}), and {_gb(room.free)} of {_gb(room.whole)} "
        f"are free: {_gb(need.bytes - room.free)} are missing"
    )
    on_gpu = room.place.startswith("GPU")
    options = [*remedies, "compute.device: cpu"] if on_gpu else remedies
    lower = f"Set {' or '.join(options)}" if options else "Take a smaller base model or a machine with more memory"
    raise StageError(stage, lacking, f"{lower}, or free memory that other programs hold")


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
