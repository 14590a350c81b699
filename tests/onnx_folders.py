"""What tests of ONNX graphs share: olive-quantized tiny models, random adapters, logits of both sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from resources.olive.awq_folder import load_dequantized
from resources.olive.workflow import run_workflow

IDS = [[7 * index % 500 + 3 for index in range(24)]]
LONG_IDS = [[7 * index % 500 + 3 for index in range(200)]]  # the tiny Phi-3 has its short rope factors up to 128


def quantize(base_model: Path, folder: Path, symmetric: bool = False, **rtn) -> Path:
    """An olive-quantized copy of `base_model` in `folder`, biases other than zero where it has any."""
    config = {
        "input_model": {"type": "HfModel", "model_path": str(_biased(base_model, folder / "biased"))},
        "passes": {"rtn": {"type": "Rtn", "bits": 4, "group_size": 32, "sym": symmetric} | rtn},
    }
    run_workflow(config, folder / "awq_model")
    return folder / "awq_model"


def save_random_adapter(
    awq_model: Path, folder: Path, targets: tuple[str, ...], r: int = 4, alpha: float = 8.0, seed: int = 1, **config
) -> Path:
    """A PEFT adapter with random A and B on all modules called `targets`."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = get_peft_model(
        load_dequantized(awq_model),
        LoraConfig(r=r, lora_alpha=alpha, target_modules=list(targets), task_type="CAUSAL_LM", **config),
    )
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(str(folder))
    return folder


def torch_logits(awq_model: Path, ids: list[list[int]], adapter: Path | None = None) -> np.ndarray:
    """[batch, sequence, vocabulary] of the awq model, dequantized, with the PEFT adapter where one is given."""
    import torch
    from peft import PeftModel

    model = load_dequantized(awq_model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.float().numpy()


def onnx_logits(folder: Path, ids: list[list[int]], adapter: str | None = None) -> np.ndarray:
    """[batch, sequence, vocabulary] of model.onnx in `folder` on the CPU, run once with an empty key-value cache."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    tokens = np.asarray(ids, np.int64)
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            dtype = np.float16 if "float16" in value.type else np.float32
            feeds[value.name] = np.zeros((len(ids), config["num_key_value_heads"], 0, config["head_size"]), dtype)
    run_options = onnxruntime.RunOptions()
    if adapter is not None:
        loaded = onnxruntime.LoraAdapter()
        loaded.Load(str(folder / "adapters" / f"{adapter}.onnx_adapter"))
        run_options.add_active_adapter(loaded)
    return session.run(["logits"], feeds, run_options)[0].astype(np.float32)


def open_graph(folder: Path):
    """The onnx_ir model of model.onnx in `folder`."""
    import onnx_ir as ir

    return ir.load(folder / "model.onnx")


def _biased(base_model: Path, folder: Path) -> Path:
    """A copy of `base_model` whose zero biases, which the builder drops, are random."""
    from shutil import copytree

    import torch
    from safetensors.torch import load_file, save_file

    copytree(base_model, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    torch.manual_seed(3)
    for name in sorted(tensors):
        if name.endswith(".bias"):
            torch.nn.init.normal_(tensors[name], std=0.3)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder
