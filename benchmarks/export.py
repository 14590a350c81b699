"""Host memory that building an onnx_model takes: the part onnx_graph and the graft, at Phi-3.5-mini's size.

The awq model has that shape and random codes (int4 in groups of 128, bfloat16 scales, fused projections), and a random
adapter of rank 64 on all of its projections. The build runs in a process of its own. Its memory may peak at twice the
bytes of the awq model plus 4 GB; a peak beyond that ends the benchmark with code 1. Before the table, codes of
projections drawn at random are compared with the graph's.

    python -m benchmarks.export [--layers 32] [--seed 0] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.models import PHI35_SHAPE, tokenizer, weight_bytes
from resources.olive.graft import graft_adapter
from resources.olive.phases import timed_phases
from resources.olive.unfused import FUSED, fused_rows
from resources.peak_memory import peak_memory_bytes
from resources.progress import RecordedProgress

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 128
RANK = 64
COMPARED = 5


def main() -> None:
    options = _options()
    if options.built:
        build(options.built)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        save_random_awq_model(folder / "awq_model", options.layers, options.seed)
        save_random_lora(folder / "lora_adapter", options.layers, options.seed + 1)
        command = [sys.executable, "-m", "benchmarks.export", "--built", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        compare_codes(folder, options.layers, options.seed + 2)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        int4 = weight_bytes(folder / "awq_model")
        made = sum(file.stat().st_size for file in (folder / "onnx_model").rglob("*") if file.is_file())
    bound = 2 * int4 + 4e9
    print(f"{options.layers} layers of Phi-3.5-mini, random int4 codes: {int4 / 1e9:.2f} GB; {COMPARED} compared\n")
    print("| peak memory, GB | of it anonymous | 2 × the awq model + 4 GB | folder made, GB |\n|---|---|---|---|")
    anonymous = f"{result['anonymous'] / 1e9:.2f}" if result["anonymous"] else ""
    print(f"| {result['peak'] / 1e9:.2f} | {anonymous} | {bound / 1e9:.2f} | {made / 1e9:.2f} |\n")
    print("| phase | seconds |\n|---|---|")
    for name, seconds in result["phases"].items():
        print(f"| {name} | {seconds:.1f} |")
    if result["peak"] > bound:
        sys.exit("the peak is above the bound")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=PHI35_SHAPE["num_hidden_layers"])
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the codes")
    parser.add_argument(
        "--folder", type=Path, help="for what is made, about 3 times the awq model; else a temporary one"
    )
    parser.add_argument("--built", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def build(folder: Path) -> None:
    """Build onnx_graph and onnx_model in `folder`, as the stage does, and leave result.json there."""
    import torch  # noqa: F401  # its import is no part of a phase
    from olive.workflows import run  # noqa: F401

    from assets.onnx_graph import build_graph
    from resources.olive.onnx_model import GraphOptions

    memory = AnonymousMemory()
    with timed_phases() as phases:
        start = time.perf_counter()
        build_graph(folder / "awq_model", GraphOptions("cpu", "int8", 4), folder / "onnx_graph", RecordedProgress())
        built = time.perf_counter()
        graft_adapter(folder / "onnx_graph", folder / "lora_adapter", folder / "onnx_model", "travel")
    rest = built - start - sum(phases.values())
    told = phases | {"Olive, and saving the graph": rest, "graft": time.perf_counter() - built}
    result = {"peak": peak_memory_bytes(), "anonymous": memory.peak, "phases": told}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


class AnonymousMemory:
    """peak: the most resident memory that no file backs, looked at every 20 ms; 0 where the system does not tell."""

    def __init__(self) -> None:
        self.peak = 0
        if Path("/proc/self/status").is_file():
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)
            time.sleep(0.02)


def save_random_awq_model(folder: Path, layers: int, seed: int) -> None:
    """An olive-quantized Phi-3 of Phi-3.5-mini's shape with random codes, asymmetric int4 in groups of GROUP."""
    import torch
    from safetensors.torch import save_file
    from transformers import Phi3Config

    generator = torch.Generator().manual_seed(seed)
    config = {**PHI35_SHAPE, "num_hidden_layers": layers}
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    tensors = {
        "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16),
        "model.embed_tokens.weight": _random((vocabulary, hidden), 0.02, generator),
        "lm_head.weight": _random((vocabulary, hidden), 0.02, generator),
    }
    for layer in range(layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        for name, (outputs, inputs) in _sizes(config).items():
            tensors |= _random_codes(f"model.layers.{layer}.{name}", outputs, inputs, generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whole: Any = {**config, "tie_word_embeddings": False, "architectures": ["Phi3ForCausalLM"]}
    Phi3Config(**whole, dtype="bfloat16").save_pretrained(folder)
    _mark_quantized(folder / "config.json")
    tokenizer().save_pretrained(folder)


def save_random_lora(folder: Path, layers: int, seed: int, rank: int = RANK) -> None:
    """A PEFT adapter of `rank` on all projections of that model."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(layers):
        for name, (outputs, inputs) in _sizes(PHI35_SHAPE).items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = _random((rank, inputs), 0.02, generator)
            tensors[f"{module}.lora_B.weight"] = _random((outputs, rank), 0.02, generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def compare_codes(folder: Path, layers: int, seed: int) -> None:
    """End the program unless the codes of a few projections, drawn by `seed`, are the same bytes in model and graph."""
    import random

    import onnx_ir as ir
    from safetensors import safe_open

    draw = random.Random(seed)
    graph = ir.load(folder / "onnx_model" / "model.onnx").graph
    nodes = {node.name: node for node in graph}
    config = json.loads((folder / "awq_model" / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "awq_model" / "model.safetensors", framework="pt") as tensors:
        for _ in range(COMPARED):
            layer, module = draw.randrange(layers), draw.choice(list(_sizes(config)))
            block, _, projection = module.partition(".")
            codes, start = tensors.get_tensor(f"model.layers.{layer}.{module}.qweight"), 0
            parts = FUSED.get(projection, (projection,))
            for part, rows in zip(parts, fused_rows(config).get(projection, (len(codes),)), strict=True):
                place = f"/model/layers.{layer}/{block.removeprefix('self_')}/{part}/MatMulNBits"
                value = nodes[place].inputs[1]
                if _stored(folder / "onnx_model", value) != codes[start : start + rows].numpy().tobytes():
                    sys.exit(f"the codes of {place} are not those of the awq model")
                start += rows


def _stored(folder: Path, value: Any) -> bytes:
    """The bytes of an initializer; onnx_ir itself reads no data file that has hard links."""
    tensor = value.const_value
    with (folder / tensor.location).open("rb") as data:
        data.seek(tensor.offset)
        return data.read(tensor.length)


def _sizes(config: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Projection → outputs, inputs."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return {
        "self_attn.qkv_proj": (3 * hidden, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_up_proj": (2 * inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def _random_codes(name: str, outputs: int, inputs: int, generator: Any) -> dict[str, Tensor]:
    import torch

    def codes(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    groups = inputs // GROUP
    scales = torch.rand((outputs, groups), generator=generator) / 500 + 1e-3
    return {
        f"{name}.qweight": codes(outputs, inputs // 2),
        f"{name}.qzeros": codes(outputs, groups // 2),
        f"{name}.scales": scales.to(torch.bfloat16),
    }


def _random(shape: tuple[int, int], scale: float, generator: Any) -> Tensor:
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.bfloat16) * scale


def _mark_quantized(file: Path) -> None:
    config = json.loads(file.read_text(encoding="utf-8"))
    grid = {"bits": 4, "group_size": GROUP, "symmetric": False, "embeds": False, "lm_head": False}
    config["quantization_config"] = {"quant_method": "olive", **grid, "overrides": None, "modules_to_not_convert": None}
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
