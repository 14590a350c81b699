"""How much memory a stage needs, from the shape of the base model and what is asked: pure, and never exact.

The constants below are what the sums were fitted with. On a GPU they meet what was measured; in the memory of the
machine, where pages that are not used cost nothing and there is swap, only what is surely used at once counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ADAM = 16  # bytes for a trained parameter: itself, its gradient and two moments, in float32

# AWQ, float32. Measured at Phi-3.5-mini's shape with 128 × 512 tokens, 8192 at once: 5.3 GB that PyTorch had reserved.
AWQ_LAYER_COPIES = 2  # of one layer's weights while its scales are searched
AWQ_HIDDEN, AWQ_INTERMEDIATE = 10, 6  # floats for a token that goes through a layer, by the size of its vectors
AWQ_HIDDEN_SHARE = 0.25  # of the GPU's memory that all hidden states may take there; else one batch of them is there
RESERVED = 1.15  # what PyTorch's allocator takes for what is in use

# LoRA on a GPU, bfloat16 with gradient checkpointing: bytes for a token inside the one layer that is computed again.
LORA_HIDDEN, LORA_INTERMEDIATE = 40, 30
LORA_LOGIT = 14  # bytes for each logit: bfloat16, float32 and their gradients
# On the CPU, float32 without checkpointing: bytes for a token in every layer.
LORA_CPU_HIDDEN, LORA_CPU_INTERMEDIATE = 32, 12
LORA_CPU_LOGIT = 8

NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a dense decoder; dtype_bytes: of one of its weights as they are published."""

    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool
    dtype_bytes: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> ModelShape | None:
        """The shape that this config.json tells; None for a model that is built otherwise."""
        if any(not isinstance(config.get(name), int) for name in NEEDED) or any("expert" in name for name in config):
            return None
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        return ModelShape(
            config["hidden_size"],
            config["intermediate_size"],
            config["num_hidden_layers"],
            heads * size,
            (config.get("num_key_value_heads") or heads) * size,
            config["vocab_size"],
            bool(config.get("tie_word_embeddings", False)),
            BYTES.get(config.get("dtype") or config.get("torch_dtype") or "float32", 4),
        )

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Name → inputs and outputs of each linear layer, fused ones too."""
        attention = {"q_proj": self.query, "k_proj": self.key_value, "v_proj": self.key_value}
        return {
            **{name: (self.hidden, outputs) for name, outputs in attention.items()},
            "qkv_proj": (self.hidden, self.query + 2 * self.key_value),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "gate_up_proj": (self.hidden, 2 * self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def layer_parameters(self) -> int:
        attention = self.hidden * (2 * self.query + 2 * self.key_value)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def largest_module(self) -> int:
        """Parameters of the module that has most."""
        return max(self.embedding_parameters, *(inputs * outputs for inputs, outputs in self.projections.values()))

    @property
    def parameters(self) -> int:
        return self.layers * self.layer_parameters + self.embedding_parameters * (1 if self.tied else 2)


@dataclass(frozen=True)
class Need:
    """Bytes that are needed at once, by what needs them."""

    parts: Mapping[str, float]

    @property
    def bytes(self) -> int:
        return round(sum(self.parts.values()))


@dataclass(frozen=True)
class AwqWork:
    """What awq_model is asked to do; at_once: samples that go through a layer together."""

    samples: int
    tokens: int
    at_once: int
    measure_samples: int


@dataclass(frozen=True)
class LoraWork:
    """What lora_adapter is asked to do; tokens: of the longest row that is trained on."""

    r: int
    target_modules: Collection[str]
    batch_size: int
    tokens: int


def awq_gpu_need(shape: ModelShape, work: AwqWork, whole: int) -> Need:
    """GPU memory: that of one layer and its tokens, or of one module and its logits while perplexity is measured.

    whole: bytes of memory that the GPU has.
    """
    batch = min(work.at_once, work.samples) * work.tokens
    states = 4 * work.samples * work.tokens * shape.hidden
    inside = 4 * batch * (AWQ_HIDDEN * shape.hidden + AWQ_INTERMEDIATE * shape.intermediate)
    quantizing = {
        "one layer": 4 * AWQ_LAYER_COPIES * shape.layer_parameters * RESERVED,
        "embedding": shape.dtype_bytes * shape.embedding_parameters * RESERVED,
        "hidden states": (states if states <= AWQ_HIDDEN_SHARE * whole else 4 * batch * shape.hidden) * RESERVED,
        "tokens inside a layer": inside * RESERVED,
    }
    logits = (shape.dtype_bytes + 8) * work.tokens * shape.vocabulary
    measuring = {"largest module": shape.dtype_bytes * shape.largest_module, "logits": logits}
    needs = [Need(quantizing), *([Need(measuring)] if work.measure_samples else [])]
    return max(needs, key=lambda need: need.bytes)


def lora_gpu_need(shape: ModelShape, work: LoraWork) -> Need:
    """GPU memory: the dequantized weights in bfloat16, what is trained, and a batch with gradient checkpointing."""
    tokens = work.batch_size * work.tokens
    inside = LORA_HIDDEN * shape.hidden + LORA_INTERMEDIATE * shape.intermediate
    return Need(
        {
            "weights": 2 * shape.parameters,
            "adapter and optimizer": ADAM * adapter_parameters(shape, work),
            "hidden states": 2 * tokens * shape.hidden * shape.layers,
            "tokens inside a layer": tokens * inside,
            "logits": LORA_LOGIT * tokens * shape.vocabulary,
        }
    )


def module_gpu_need(shape: ModelShape) -> Need:
    """GPU memory, at least, of dequantized weights in float32 that may go there module by module (placement.py)."""
    return Need({"largest module": 4 * shape.largest_module})


def float32_need(shape: ModelShape) -> Need:
    """Memory of the dequantized weights in float32, which eval_report holds the graph against."""
    return Need({"weights": 4 * shape.parameters})


def bfloat16_need(shape: ModelShape) -> Need:
    """Memory of the dequantized weights in bfloat16, which lora_adapter loads before they go to the GPU."""
    return Need({"weights": 2 * shape.parameters})


def awq_host_need(shape: ModelShape, work: AwqWork) -> Need:
    """Memory of the machine: the whole model as it is published, the hidden states, one layer in float32."""
    return Need(
        {
            "weights": shape.dtype_bytes * shape.parameters,
            "hidden states": 4 * work.samples * work.tokens * shape.hidden,
            "one layer": 4 * shape.layer_parameters,
        }
    )


def lora_host_need(shape: ModelShape, work: LoraWork) -> Need:
    """Memory of the machine on the CPU: the dequantized weights in float32, what is trained, and a batch."""
    tokens = work.batch_size * work.tokens
    inside = LORA_CPU_HIDDEN * shape.hidden + LORA_CPU_INTERMEDIATE * shape.intermediate
    return Need(
        {
            "weights": 4 * shape.parameters,
            "adapter and optimizer": ADAM * adapter_parameters(shape, work),
            "tokens inside the layers": tokens * inside * shape.layers,
            "logits": LORA_CPU_LOGIT * tokens * shape.vocabulary,
        }
    )


def adapter_parameters(shape: ModelShape, work: LoraWork) -> int:
    """The trained parameters: A and B of each target module that the model may have, in every layer."""
    sizes = [size for name, size in shape.projections.items() if name in work.target_modules]
    return shape.layers * work.r * sum(inputs + outputs for inputs, outputs in sizes)


def largest_that_fits(now: int, least: int, need: Callable[[int], Need], free: int) -> int | None:
    """The largest of `now` / 2, `now` / 4, … `least` with which `need` is at most `free`; None where none is."""
    value = now
    while value > least:
        value = max(least, value // 2)
        if need(value).bytes <= free:
            return value
    return None
