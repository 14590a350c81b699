"""The weights of an olive-quantized Llama, and of its LoRA adapter, as GGUF files for llama.cpp.

int4 in asymmetric groups of 32 is GGUF's Q4_1 value for value: w = d code + m, d the scale, m = -zero × scale, both
float16. llama.cpp rotates neighbouring pairs of a head where transformers rotates halves, so rows of q_proj and k_proj
are put in that order. The embedding, which is the head, becomes Q8_0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 32
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def write_gguf(awq_model: Path, file: Path) -> None:
    """Leave in `file` the Llama in `awq_model`, int4 in asymmetric groups of 32, head tied; no vocabulary."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((awq_model / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(awq_model / "model.safetensors")
    writer = gguf.GGUFWriter(file, "llama")
    _write_shape(writer, config)
    embedding = gguf.quantize(tensors["model.embed_tokens.weight"], gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("token_embd.weight", embedding, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"].astype(np.float32))
    for layer in range(config["num_hidden_layers"]):
        place = f"model.layers.{layer}."
        for norm, name in NORMS.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", tensors[f"{place}{norm}.weight"].astype(np.float32))
        for module, name in NAMES.items():
            parts = (tensors[f"{place}{module}.{kind}"] for kind in ("qweight", "scales", "qzeros"))
            blocks = _q4_1(*(part[_row_order(module, config, len(part))] for part in parts))
            writer.add_tensor(f"blk.{layer}.{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    _close(writer)


def write_lora_gguf(adapter: Path, awq_model: Path, file: Path) -> None:
    """Leave in `file` the PEFT adapter of that model, float32."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((awq_model / "config.json").read_text(encoding="utf-8"))
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(settings["lora_alpha"]))
    for name, tensor in load_file(adapter / "adapter_model.safetensors").items():
        layer, _, module = name.partition("layers.")[2].partition(".")
        module, _, half = module.removesuffix(".weight").rpartition(".")
        rows = tensor[_row_order(module, config, len(tensor))] if half == "lora_B" else tensor
        writer.add_tensor(f"blk.{layer}.{NAMES[module]}.weight.{half.lower()}", np.ascontiguousarray(rows))
    _close(writer)


def _write_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _row_order(module: str, config: dict[str, Any], rows: int) -> np.ndarray:
    """Where each row of llama.cpp's weight is in transformers'."""
    order = np.arange(rows)
    heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(module)
    if heads is None:
        return order
    return order.reshape(config[heads], 2, -1).swapaxes(1, 2).reshape(-1)


def _q4_1(codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray) -> np.ndarray:
    """Blocks of GGUF's Q4_1, uint8 [outputs, blocks × 20]: d, m, then codes 0 to 15 beside codes 16 to 31."""
    outputs, groups = scales.shape
    values = _unpacked(codes).reshape(outputs, groups, GROUP)
    least = -_unpacked(zeros)[:, :groups].astype(np.float32) * scales
    ends = np.stack([scales, least], axis=-1).astype(np.float16).view(np.uint8)
    packed = values[..., : GROUP // 2] | values[..., GROUP // 2 :] << 4
    return np.concatenate([ends.reshape(outputs, groups, 4), packed], axis=-1).reshape(outputs, -1)


def _unpacked(packed: np.ndarray) -> np.ndarray:
    """uint4 of Olive's bytes, the low half first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
