"""AWQ as an Olive pass (Lin et al., arXiv 2306.00978): scale search, clipping, then Olive's packing.

Decoder layer by decoder layer: gather what its linear layers read, scale the folds (awq_scale.py), choose each group's
grid (awq_clip.py) and pack the weights as Olive's QuantLinear. Every layer reads what the float model computes. One
layer is on the accelerator at a time, in float32, and of the hidden states of the calibration text one batch where
all of them would take much of its memory.

Olive's base finds the modules of an architecture (ModelWrapper), reads the calibration data and writes the folder; its
packed weights are those of its own Rtn pass, with scales and zero points from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from olive.common.hf.wrapper import LayerWrapper, ModelWrapper
from olive.common.quant.nn import QuantLinear
from olive.common.utils import set_attr
from olive.data.config import DataConfig
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import HfModelHandler, OliveModelHandler
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.passes.pytorch.quant_utils import (
    finalize,
    get_layer_inputs_for_calibration,
    get_quantizer_config,
    prepare_model,
)
from torch import nn

from resources.errors import ConfigurationError, StageError
from resources.olive.passes import hf_folder, token_samples  # noqa: F401  # register what run configs name
from resources.olive.passes.awq_clip import best_grid
from resources.olive.passes.awq_fold import Fold, possible_folds, working_folds
from resources.olive.passes.awq_scale import ChosenScale, scale
from resources.olive.passes.input_statistics import InputStatistics, gathered
from resources.olive.passes.quantization_grid import GridShape
from resources.olive.phases import phase
from resources.olive.progress_channel import current_progress

LAYERS_FILE = "awq_layers.json"
HIDDEN_SHARE = 0.25  # of the accelerator's memory that all hidden states may take there


class OlivePressAwq(Pass):
    """Activation-aware weight quantization to Olive's int4 or int8 format, on the CPU or CUDA."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {
            **get_quantizer_config(),
            "data_config": PassConfigParam(type_=DataConfig | dict, required=True, description="Calibration data."),
            "ratios": PassConfigParam(type_=int, default_value=20, description="Steps of the search for α."),
            "clip": PassConfigParam(type_=bool, default_value=True, description="Whether to search for bounds."),
            "device": PassConfigParam(type_=str, default_value="cpu", description="cpu or cuda."),
        }

    @torch.no_grad()
    def _run_for_config(
        self, model: OliveModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> OliveModelHandler:
        if not isinstance(model, HfModelHandler):
            raise StageError("awq_model", f"the base model is a {type(model).__name__}; accepted: HfModel")
        settings: Any = config
        with phase("load"):
            wrapper, quantization, retie = _prepared(model, config)
        shape = GridShape(int(settings.bits), settings.group_size, settings.sym)
        with _fast_products(settings.device), _enough_memory(settings.device):
            chosen = AwqLayers(model, wrapper, settings, shape).quantize()
        with phase("save"):
            result = finalize(model, output_model_path, wrapper, quantization, settings.device, retie)
        Path(output_model_path, LAYERS_FILE).write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
        return result


def _prepared(model: HfModelHandler, config: type[BasePassConfig]) -> tuple[ModelWrapper, Any, bool]:
    """Olive's wrapper of the model with every linear layer marked that will be quantized."""
    accepted = "an architecture whose decoder layers Olive finds, with linear layers (Llama, Mistral, Phi-3, Qwen2, …)"
    try:
        wrapper, quantization, retie = prepare_model(model, config)
    except AttributeError as error:  # Olive looks modules up by name
        raise ConfigurationError("base_model", f"an unknown architecture ({error})", accepted) from error
    if not any(hasattr(module, "quant_info") for module in wrapper.model.modules()):
        found = f"{type(wrapper.model).__name__}, which has no linear layers"
        raise ConfigurationError("base_model", found, accepted)
    return wrapper, quantization, retie


class AwqLayers:
    """The decoder layers of one model on their way through AWQ."""

    def __init__(self, model: HfModelHandler, wrapper: ModelWrapper, settings: Any, shape: GridShape) -> None:
        self.wrapper, self.settings, self.shape, self.device = wrapper, settings, shape, settings.device
        with _without_cache(wrapper.model.config), phase("calibrate", self.device):
            hidden, arguments, keywords = get_layer_inputs_for_calibration(
                model, wrapper, settings.data_config, self.device
            )
        if not hidden:
            raise StageError("awq_model", "the calibration data is empty")
        home = hidden_states_home(self.device, sum(values.numel() for values in hidden) * 4)
        self.hidden: list[torch.Tensor] = [values.to(home).float() for values in hidden]
        self.arguments, self.keywords = _in_float32(arguments), _in_float32(keywords)

    def quantize(self) -> list[dict[str, Any]]:
        """Quantize every layer in place; one row per layer and fold, with the α chosen and the errors."""
        layers = self.wrapper.get_layer_wrappers()
        rows = []
        for index, layer in enumerate(layers):
            dtypes = {name: parameter.dtype for name, parameter in layer.layer.named_parameters()}
            with phase("load", self.device):
                layer.layer.to(self.device).float()  # converted where it is fast
            chosen = self._quantize_layer(layer, dtypes)
            with phase("pack", self.device):
                _pack_layer(layer.layer, dtypes)
            rows += [{"layer": index, **asdict(scale)} for scale in chosen]
            current_progress().step("awq", index + 1, len(layers), _note(chosen))
        return rows

    def _quantize_layer(self, layer: LayerWrapper, dtypes: dict[str, torch.dtype]) -> list[ChosenScale]:
        """Fold the best scales into the layer, then choose the grid of every linear layer's weights."""
        linears = {name: module for name, module in layer.layer.named_modules() if hasattr(module, "quant_info")}
        ratios, clip = self.settings.ratios, self.settings.clip
        with phase("search", self.device):
            folds = self._working_folds(layer)
        with phase("calibrate", self.device), gathered(list(linears.values()), self.shape) as statistics:
            for batch, hidden in enumerate(self.hidden):
                hidden.copy_(self._compute(layer.layer, *self._batch(batch)))
        with phase("search", self.device):
            read = [fold for fold in folds if statistics.keys() >= set(fold.linears)]
            chosen = [scale(fold, statistics[fold.linears[0]], self.shape, ratios) for fold in read]
        with phase("clip", self.device):
            for name, linear in linears.items():
                known = statistics.get(linear) if clip else None  # a layer that no token reached is not clipped
                self._choose_grid(linear, known, dtypes[f"{name}.weight"])
        return chosen

    def _choose_grid(self, linear: Any, statistics: InputStatistics | None, dtype: torch.dtype) -> None:
        """Scales, as `dtype` can hold them, and zero points go to `linear.quant_info`."""
        gram = statistics.group_gram if statistics is not None else None
        scales, zeros = best_grid(linear.weight, gram, self.shape)
        linear.quant_info.scales, linear.quant_info.zero_points = scales.to(dtype).float(), zeros.to(torch.int32)

    def _working_folds(self, layer: LayerWrapper) -> list[Fold]:
        """The folds that change nothing on the first sample of the text, in exact float32."""
        size = len(self.hidden[0])
        first = [_first_sample(value, size) for value in self._batch(0)]
        with _matmul_precision("highest"):
            outputs = self._compute(layer.layer, *first)
            folds = possible_folds(self.wrapper, layer)
            return working_folds(folds, lambda: self._compute(layer.layer, *first), first[0], outputs)

    def _batch(self, batch: int) -> tuple[torch.Tensor, Any, Any]:
        return self.hidden[batch].to(self.device), self.arguments[batch], self.keywords[batch]

    def _compute(self, layer: nn.Module, hidden: torch.Tensor, arguments: Any, keywords: Any) -> torch.Tensor:
        output = layer(hidden, *arguments, **keywords)
        return output[0] if isinstance(output, tuple) else output


def hidden_states_home(device: str, size: int) -> str:
    """Where `size` bytes of hidden states wait between two layers: on the accelerator where there is room."""
    if not device.startswith("cuda"):
        return device
    return device if size <= HIDDEN_SHARE * torch.cuda.get_device_properties(device).total_memory else "cpu"


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(kept)


@contextmanager
def _enough_memory(device: str) -> Iterator[None]:
    """Inside the block a GPU that is too small is a StageError that says so and what lowers the need."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, whole = torch.cuda.mem_get_info(device)
        peak = torch.cuda.max_memory_allocated(device)
        raise StageError(
            "awq_model",
            f"the GPU's memory does not suffice: up to {_gb(peak)} of {_gb(whole)} were in use, {_gb(free)} are free "
            f"now ({'. '.join(str(error).split('. ')[:2])})",
            "Lower awq_model.tokens, free memory that other programs hold, or set compute.device: cpu",
        ) from error


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _fast_products(device: str) -> AbstractContextManager[None]:
    """Inside the block CUDA multiplies float32 with TF32's 10 bits, more than the bfloat16 that models are run in."""
    return _matmul_precision("high") if device.startswith("cuda") else nullcontext()


def _first_sample(value: Any, batch_size: int) -> Any:
    """`value` with every tensor in it that has a row for each of the `batch_size` samples cut to the first row."""
    if isinstance(value, torch.Tensor):
        return value[:1] if value.dim() > 1 and len(value) == batch_size else value
    if isinstance(value, dict):
        return {name: _first_sample(item, batch_size) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_first_sample(item, batch_size) for item in value)
    return value


@contextmanager
def _without_cache(config: Any) -> Iterator[None]:
    """Inside the block the model keeps no keys and values; its configuration, which is saved, stays as it was."""
    kept = getattr(config, "use_cache", None)
    if kept is not None:
        config.use_cache = False
    yield
    if kept is not None:
        config.use_cache = kept


def _pack_layer(layer: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Put Olive's packed layers in place, and the layer back on the CPU in the types it came in."""
    for name, module in list(layer.named_modules()):
        if hasattr(module, "quant_info"):
            set_attr(layer, name, _packed(module, dtypes[f"{name}.weight"]))
    layer.to("cpu")
    for name, parameter in layer.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])


def _packed(linear: Any, dtype: torch.dtype) -> QuantLinear:
    info = linear.quant_info
    quantizer = info.quantizer
    packed = QuantLinear.from_module(
        linear,
        bits=quantizer.bits,
        symmetric=quantizer.symmetric,
        group_size=quantizer.group_size,
        scales=info.scales,
        zero_points=info.zero_points,
    )
    packed.scales, packed.dtype = packed.scales.to(dtype), dtype
    if packed.bias is not None:
        packed.bias = packed.bias.to(dtype)
    return packed


def _in_float32(value: Any) -> Any:
    """`value` with every floating-point tensor in it, however nested, in float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _in_float32(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_float32(item) for item in value)
    return value


def _note(chosen: list[ChosenScale]) -> str:
    """How much of the layer's error the scales took away."""
    before, after = sum(scale.error_before for scale in chosen), sum(scale.error_after for scale in chosen)
    return f"error −{100 * (1 - after / before):.0f} %" if before else "nothing to scale"
