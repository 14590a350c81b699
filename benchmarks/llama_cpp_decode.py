"""Greedy decoding with llama.cpp in a process of its own, whose Python has llama-cpp-python and numpy only.

    PYTHON benchmarks/llama_cpp_decode.py REQUEST.json

The request: {"model": FILE, "lora": FILE, "prompts": [[token, …], …], "tokens": count, "rounds": count, "threads": 2}.
Standard output gets {"version", "seconds": {"base": [[…] a prompt], "lora": …}}, seconds a decoded token. "logits" in
the request is the .npy file that gets the logits after the first prompt, without LoRA and with it.
"""

import ctypes
import json
import sys
import time
from pathlib import Path

import llama_cpp as llama  # pyright: ignore[reportMissingImports]
import numpy as np


def main() -> None:
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        request = json.load(file)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(request["model"].encode(), llama.llama_model_default_params())
    lora = llama.llama_adapter_lora_init(model, request["lora"].encode())
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    params = llama.llama_context_default_params()
    params.n_ctx = max(map(len, request["prompts"])) + request["tokens"] * request["rounds"] + 8
    params.n_threads = params.n_threads_batch = request["threads"]
    contexts = {name: llama.llama_init_from_model(model, params) for name in ("base", "lora")}
    adapters, scales = (llama.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
    llama.llama_set_adapters_lora(contexts["lora"], adapters, 1, scales)
    logits, seconds = {}, {"base": [], "lora": []}
    for number, prompt in enumerate(request["prompts"]):
        last = {name: prefill(context, prompt, vocabulary) for name, context in contexts.items()}
        if number == 0:
            logits = dict(last)
        taken = {name: [] for name in contexts}
        for turn in range(request["rounds"]):
            for name in sorted(contexts, reverse=turn % 2 == 1):
                for _ in range(request["tokens"]):
                    start = time.perf_counter()
                    last[name] = decode(contexts[name], [int(last[name].argmax())], vocabulary)
                    taken[name].append(time.perf_counter() - start)
        for name, of_prompt in taken.items():
            seconds[name].append(of_prompt)
    np.save(request["logits"], np.stack([logits["base"], logits["lora"]]))
    print(json.dumps({"version": llama.__version__, "seconds": seconds}))


def prefill(context, prompt, vocabulary):
    """The logits after `prompt`, given token by token: several at once end llama.cpp's AMX build with a crash."""
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    for token in prompt[:-1]:
        decode(context, [token], vocabulary)
    return decode(context, prompt[-1:], vocabulary)


def decode(context, tokens, vocabulary):
    """The logits after the last of `tokens`."""
    array = (llama.llama_token * len(tokens))(*tokens)  # the batch points into it
    batch = llama.llama_batch_get_one(array, len(tokens))
    if llama.llama_decode(context, batch) != 0:
        sys.exit("llama.cpp did not decode")
    return np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (vocabulary,)).copy()


@llama.llama_log_callback
def quiet(level, text, data):
    if level == 4:  # an error
        sys.stderr.write(text.decode(errors="replace"))


if __name__ == "__main__":
    main()
