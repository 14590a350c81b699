"""Reads an olive-quantized Hugging Face folder as an ordinary float model that holds the same values.

transformers knows no "olive" quantization of its own: without Olive's quantizer registered it warns and initialises the
missing weights at random. Here the quantizer is registered first, and weights that do not fit are an error.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import StageError
from resources.placement import fits

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

LOADED_WRONGLY = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


def load_dequantized(
    folder: Path, dtype: str = "float32", device: str = "cpu", trust_remote_code: bool = False, whole: bool = True
) -> PreTrainedModel:
    """The model in `folder` with every quantized layer replaced by a float one of the same (dequantized) values.

    The model is in eval mode, has no quantization config any more and can be trained. Where it need not be `whole` on
    `device` (placement.py) and does not fit, it stays on the CPU. A folder that is not olive-quantized, and any
    missing, unexpected or misshapen weight, is a StageError.
    """
    _check_quantized(folder)
    model = _load(folder, dtype, trust_remote_code)
    if whole or fits(_dequantized_bytes(model), device):
        model.to(device)  # pyright: ignore[reportArgumentType]  # int4 travels, and is unpacked where that is fast
    _replace_quantized(model)
    _forget_quantizer(model)
    return model.eval()


def save_dequantized(folder: Path, out: Path, trust_remote_code: bool = False) -> None:
    """Leave in `out` a float32 checkpoint of the values of the olive-quantized `folder`, and its other files."""
    load_dequantized(folder, trust_remote_code=trust_remote_code).save_pretrained(out)
    for file in folder.iterdir():
        weights = file.suffix == ".safetensors" or file.name.endswith(".index.json")
        if file.is_file() and not weights and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)


def _check_quantized(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = (config.get("quantization_config") or {}).get("quant_method")
    if found != "olive":
        raise StageError("awq_model", f"{folder} holds {found or 'no'} quantization; accepted: olive")


def _load(folder: Path, dtype: str, trust_remote_code: bool) -> PreTrainedModel:
    import torch
    from olive.common.quant.hf_utils import OliveHfQuantizationConfig, OliveHfQuantizer
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

    AUTO_QUANTIZATION_CONFIG_MAPPING["olive"] = OliveHfQuantizationConfig
    AUTO_QUANTIZER_MAPPING["olive"] = OliveHfQuantizer
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    except RuntimeError as error:  # what transformers raises for another shape
        raise StageError("awq_model", f"the weights in {folder} do not fit its configuration: {error}") from error
    model, loading = loaded
    wrong = {kind: sorted(map(str, loading[kind])) for kind in LOADED_WRONGLY if loading.get(kind)}
    if wrong:
        listed = "; ".join(f"{kind}: {', '.join(names[:3])} ({len(names)})" for kind, names in wrong.items())
        raise StageError("awq_model", f"the weights in {folder} do not fit its configuration: {listed}")
    return model


def _dequantized_bytes(model: PreTrainedModel) -> int:
    from olive.common.quant.nn import QuantModule

    quantized = [module for module in model.modules() if isinstance(module, QuantModule)]
    unpacked: Any = sum(module.rows * module.cols for module in quantized) * model.dtype.itemsize
    return unpacked + sum(parameter.nbytes for parameter in model.parameters())


def _replace_quantized(module: nn.Module) -> None:
    from olive.common.quant.nn import QuantModule

    for name, child in list(module.named_children()):
        if isinstance(child, QuantModule):
            setattr(module, name, _dequantized(child))
        else:
            _replace_quantized(child)


def _dequantized(quantized: Any) -> nn.Module:
    from olive.common.quant.nn import QuantEmbedding
    from torch import nn

    weight = quantized.unpack_and_dequantize(quantized.qweight, quantized.scales, quantized.qzeros)
    if isinstance(quantized, QuantEmbedding):
        return nn.Embedding.from_pretrained(weight, freeze=True, padding_idx=quantized.padding_idx)
    linear = nn.Linear(quantized.cols, quantized.rows, bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if quantized.bias is not None:
        linear.bias = nn.Parameter(quantized.bias, requires_grad=False)
    return linear


def _forget_quantizer(model: Any) -> None:
    """Trainer and PEFT refuse a model that still says it is quantized."""
    model.hf_quantizer.remove_quantization_config(model)
    if hasattr(model.config, "_is_quantized"):
        del model.config._is_quantized
