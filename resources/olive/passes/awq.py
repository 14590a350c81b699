"""AWQ as an Olive pass (Lin et al., arXiv 2306.00978): scale search, clipping, then Olive's packing.

Decoder layer by decoder layer: gather what its linear layers read, scale the folds (awq_scale.py), choose each group's
grid (awq_clip.py) and pack the weights as Olive's QuantLinear. Every layer reads what the float model computes. One
layer is on the accelerator at a time, in float32.

Olive's base finds the modules of an architecture (ModelWrapper), reads the calibration data and writes the folder; its
packed weights are those of its own Rtn pass, with scales and zero points from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
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
from resources.olive.passes import token_samples  # noqa: F401  # registers the data component that run configs name
from resources.olive.passes.awq_clip import best_grid
from resources.olive.passes.awq_fold import possible_folds, working_folds
from resources.olive.passes.awq_scale import ChosenScale, scale
from resources.olive.passes.input_statistics import InputStatistics, gathered
from resources.olive.passes.quantization_grid import GridShape, row_blocks
from resources.olive.progress_channel import current_progress

LAYERS_FILE = "awq_layers.json"
SEARCH_TOKENS = 512  # the scale search judges by about this many tokens, spread over the calibration text


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
        wrapper, quantization, retie = _prepared(model, config)
        shape = GridShape(int(settings.bits), settings.group_size, settings.sym)
        chosen = AwqLayers(model, wrapper, settings, shape).quantize()
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
        self.wrapper, self.settings, self.shape = wrapper, settings, shape
        with _without_cache(wrapper.model.config):
            hidden, arguments, keywords = get_layer_inputs_for_calibration(
                model, wrapper, settings.data_config, settings.device
            )
        if not hidden:
            raise StageError("awq_model", "the calibration data is empty")
        self.hidden: list[torch.Tensor] = [values.float() for values in hidden]
        self.arguments, self.keywords = _in_float32(arguments), _in_float32(keywords)
        tokens = sum(values.shape[:-1].numel() for values in hidden)
        self.token_stride = max(1, tokens // SEARCH_TOKENS)

    def quantize(self) -> list[dict[str, Any]]:
        """Quantize every layer in place; one row per layer and fold, with the α chosen and the errors."""
        layers = self.wrapper.get_layer_wrappers()
        rows = []
        for index, layer in enumerate(layers):
            dtypes = {name: parameter.dtype for name, parameter in layer.layer.named_parameters()}
            layer.layer.to(self.settings.device, torch.float32)
            chosen = self._quantize_layer(layer, dtypes)
            _pack_layer(layer.layer, dtypes)
            rows += [{"layer": index, **asdict(scale)} for scale in chosen]
            current_progress().step("awq", index + 1, len(layers), _note(chosen))
        return rows

    def _quantize_layer(self, layer: LayerWrapper, dtypes: dict[str, torch.dtype]) -> list[ChosenScale]:
        """Fold the best scales into the layer, then choose the grid of every linear layer's weights."""
        linears = {name: module for name, module in layer.layer.named_modules() if hasattr(module, "quant_info")}
        with gathered(list(linears.values()), self.shape, self.token_stride) as statistics:
            outputs = [self._compute(layer.layer, sample) for sample in range(len(self.hidden))]
        possible = [fold for fold in possible_folds(self.wrapper, layer) if statistics.keys() >= set(fold.linears)]
        folds = working_folds(possible, lambda: self._compute(layer.layer, 0), self.hidden[0], outputs[0])
        chosen = [scale(fold, statistics[fold.linears[0]], self.shape, self.settings.ratios) for fold in folds]
        for name, linear in linears.items():
            self._choose_grid(linear, statistics.get(linear), dtypes[f"{name}.weight"])
        self.hidden = outputs
        return chosen

    def _choose_grid(self, linear: Any, statistics: InputStatistics | None, dtype: torch.dtype) -> None:
        """Scales, as `dtype` can hold them, and zero points go to `linear.quant_info`."""
        # a layer that no token reached is rounded and not clipped
        gram = statistics.group_gram if statistics is not None and self.settings.clip else None
        found = [best_grid(linear.weight[rows], gram, self.shape) for rows in row_blocks(linear.weight)]
        scales, zeros = (torch.cat(part).squeeze(-1) for part in zip(*found, strict=True))
        linear.quant_info.scales, linear.quant_info.zero_points = scales.to(dtype).float(), zeros.to(torch.int32)

    def _compute(self, layer: nn.Module, sample: int) -> torch.Tensor:
        output = layer(self.hidden[sample], *self.arguments[sample], **self.keywords[sample])
        return output[0] if isinstance(output, tuple) else output


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
