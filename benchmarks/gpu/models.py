"""The model and the tokens that the benchmarks on a GPU work on, made on the machine that runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Phi-3.5-mini-instruct's config.json, as far as it decides the work; its rope scaling changes a table only.
PHI35_SHAPE: dict[str, int] = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "pad_token_id": 32000,
}


def save_random_phi3(folder: Path, device: str, seed: int, **changed: int) -> None:
    """A Phi-3 of Phi-3.5-mini's shape (3.8 B parameters; `changed` makes it smaller), random, in bfloat16."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(seed)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            config: Any = PHI35_SHAPE | changed
            model: Any = Phi3ForCausalLM(Phi3Config(**config, tie_word_embeddings=False))
    finally:
        torch.set_default_dtype(kept)
    model.to("cpu").save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def tokenizer() -> Any:
    """A tokenizer of one word: the tools want one, and the samples are tokens already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"t": 0}, unk_token="t"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t", pad_token="t")


def save_random_tokens(file: Path, samples: int, tokens: int, seed: int) -> None:
    """Token samples as the AWQ pass reads them, of tokens that every such model has."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, PHI35_SHAPE["bos_token_id"] + 999, (samples, tokens), generator=generator)
    file.write_text(json.dumps(ids.tolist()), encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
