"""Tiny random models of the architectures that users press: Llama with GQA, Phi-3 with longrope, Qwen2."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
ARCHITECTURES = ("llama", "phi3", "qwen2")


def save_tiny_model(architecture: str, folder: Path, seed: int = 0) -> Path:
    """A Hugging Face folder with random float32 weights and a small byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer()
    sizes = SIZES | {"vocab_size": len(tokenizer)}
    torch.manual_seed(seed)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2))
    else:
        factors = [1.0 + 0.1 * index for index in range(8)]
        rope = {
            "type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": factors,
            "long_factor": [2 * f for f in factors],
        }
        sizes |= {"max_position_embeddings": 256, "original_max_position_embeddings": 128}
        model = Phi3ForCausalLM(Phi3Config(**sizes, num_key_value_heads=4, rope_scaling=rope))
    for parameter in model.parameters():  # transformers' 0.02 would make every logit alike
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer():
    from pydoc_data.topics import topics

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2TokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([topics[name] for name in sorted(topics)[:20]], trainer)
    tokenizer = GPT2TokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|im_end|>",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
