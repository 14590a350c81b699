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

# Changes that leave two small layers of it.
SMALL = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
TURN, END_OF_TURN = "<|turn|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    + TURN
    + "{{ message['role'] }}\n{{ message['content'] }}"
    + END_OF_TURN
    + "{% endfor %}{% if add_generation_prompt %}"
    + TURN
    + "assistant\n{% endif %}"
)


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
    """A byte-level tokenizer of 4,096 tokens, trained on the Python documentation's topics, with a chat template."""
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bytewise.train_from_iterator([topics[name] for name in sorted(topics)], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bytewise, pad_token=END_OF_TURN, eos_token=END_OF_TURN)
    made.chat_template = CHAT_TEMPLATE
    return made


def save_random_tokens(file: Path, samples: int, tokens: int, seed: int) -> None:
    """Token samples as the AWQ pass reads them, of tokens that every such model has."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, PHI35_SHAPE["bos_token_id"] + 999, (samples, tokens), generator=generator)
    file.write_text(json.dumps(ids.tolist()), encoding="utf-8")


def save_awq_model(base: Path, folder: Path, device: str) -> None:
    """An awq model of `base` in int4 groups of 128; its quality counts for nothing, so it is calibrated on little."""
    from resources.olive.awq_model import PASSES, awq_run_config
    from resources.olive.unhashed import unhashed
    from resources.olive.workflow import run_workflow

    samples = folder.with_name(f"{folder.name}.json")
    save_random_tokens(samples, 8, 128, 0)
    settings = {"bits": 4, "group_size": 128, "symmetric": False, "ratios": 4, "clip": False}
    run_config = awq_run_config(base, samples, **settings, device=device, batch_size=8)
    run_workflow(unhashed(run_config), folder, passes=PASSES)
    (folder / "awq_layers.json").unlink()


def save_random_adapter(awq_model: Path, folder: Path, rank: int, seed: int) -> None:
    """A PEFT adapter of random weights on all four projections of a Phi-3."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((awq_model / "config.json").read_text(encoding="utf-8"))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    projections = {
        "self_attn.qkv_proj": (3 * hidden, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_up_proj": (2 * inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in projections.items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{place}.lora_A.weight"] = 0.02 * torch.randn(rank, inputs, generator=generator)
            tensors[f"{place}.lora_B.weight"] = 0.01 * torch.randn(outputs, rank, generator=generator)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = [name.rpartition(".")[2] for name in projections]
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets, "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
