"""Olive's LoRA pass on olive-quantized weights, with the loss on the responses only.

LoRA (arXiv 2106.09685): a frozen projection W gets a trained low-rank part, y = W x + (alpha / r) B A x. Here W holds
the dequantized AWQ weights, so the adapter learns around the quantization it will be served with, and no step unpacks
int4. Olive's pass freezes the base, sets the adapter up with PEFT and validates the configuration; loading, rows,
training and what is saved are ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from olive.passes.olive_pass import PassConfigParam
from olive.passes.pytorch.lora import LoRA

from resources.context import check_fits, rope_switch
from resources.errors import ConfigurationError, StageError
from resources.olive.awq_folder import load_dequantized
from resources.olive.passes import hf_folder  # noqa: F401  # registers what run configs name
from resources.olive.passes.activation_memory import adapter_size, needs_checkpointing
from resources.olive.passes.checkpoints import keep_whole, step_of
from resources.olive.passes.response_rows import ResponseRow, tokenised_rows, training_order
from resources.olive.passes.response_trainer import ResponseTrainer
from resources.olive.progress_channel import current_progress

if TYPE_CHECKING:
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.model import HfModelHandler
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
CURVE_FILE = "training_curve.json"


class OlivePressLora(LoRA):
    """Trains a LoRA adapter; an interrupted training goes on from its last whole checkpoint."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        stock = super()._default_config(accelerator_spec)
        for replaced in ("train_data_config", "eval_data_config", "device_map"):
            del stock[replaced]
        return stock | {
            "rows": PassConfigParam(type_=str, required=True, description="JSON lines of prompt and response"),
            "max_tokens": PassConfigParam(type_=int, required=True, description="longer rows are left out"),
            "device": PassConfigParam(type_=str, default_value="cpu", description="cpu or cuda"),
        }

    def load_base_pytorch_model(self, model_handler: HfModelHandler, config: Any, **_: Any) -> PreTrainedModel:
        """The model with float weights of the same values as its quantized ones.

        From here on `config` says whether activations are computed twice (activation_memory.py).
        """
        trusted = bool(model_handler.get_load_kwargs().get("trust_remote_code"))
        model = load_dequantized(Path(model_handler.model_path), config.torch_dtype, config.device, trusted)
        tokens = config.max_tokens * config.training_args.extra_args["per_device_train_batch_size"]
        twice = needs_checkpointing(model, tokens, adapter_size(model, config.target_modules, config.r))
        config.training_args.gradient_checkpointing = twice
        if twice:
            current_progress().log(f"gradient checkpointing: {tokens} tokens do not fit into the GPU at once without")
        return model

    def init_adapters(self, model: PreTrainedModel, config: Any, **kwargs: Any) -> PeftModel:
        """The model with a fresh adapter, drawn from the seed, on target modules that it has."""
        _check_targets(model, config.target_modules)
        transformers.set_seed(config.training_args.extra_args["seed"])
        return super().init_adapters(model, config, **kwargs)

    def train_and_save_new_model(
        self, model: PeftModel, tokenizer: Any, config: Any, output_model: HfModelHandler, output_model_path: str
    ) -> HfModelHandler:
        """The handler of the model with its trained adapter in `output_model_path`/adapter."""
        settings = model.config.to_dict()
        check_fits(settings, config.max_tokens, "lora_adapter.max_tokens")
        rows, dropped = _usable_rows(tokenised_rows(Path(config.rows), tokenizer), config.max_tokens)
        arguments = config.training_args.create_training_args()
        lengths = [len(row) for row in rows]
        order = training_order(lengths, arguments.max_steps, arguments.train_batch_size, arguments.seed)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        trainer = ResponseTrainer(
            current_progress(),
            rope_switch(settings),
            model=model,
            args=arguments,
            train_dataset=[rows[row].sample() for row in order],
            data_collator=lambda samples: self.collate_batch(samples, tokenizer),
        )
        _train(trainer, Path(str(arguments.output_dir)))
        folder = Path(output_model_path) / "adapter"
        _save_adapter(model, folder)
        _save_curve(trainer, [rows[row] for row in order], {"rows": len(rows), "dropped_rows": dropped}, folder)
        output_model.set_resource("adapter_path", folder)
        return output_model


def _check_targets(model: PreTrainedModel, wanted: list[str]) -> None:
    """Every wanted name must be the last part of a linear layer's name; the head is none of them."""
    from torch import nn

    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    known = sorted({name.rpartition(".")[2] for name in linear})
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigurationError(
            "lora_adapter.target_modules",
            ", ".join(unknown),
            ", ".join(known),
            f"these are the projections of a {model.config.model_type} model",
        )


def _usable_rows(rows: list[ResponseRow], max_tokens: int) -> tuple[list[ResponseRow], int]:
    """The rows of at most `max_tokens`, and how many are longer: cut, they would teach answers that break off."""
    if not rows:
        raise StageError("lora_adapter", "the dataset holds no rows to train on", "look at the dataset stage's report")
    usable = [row for row in rows if len(row) <= max_tokens]
    dropped = len(rows) - len(usable)
    shortest = min(len(row) for row in rows)
    if not usable:
        raise ConfigurationError(
            "lora_adapter.max_tokens",
            f"{max_tokens}, which leaves all {dropped} rows out",
            f"at least {shortest}, the length of the shortest row",
            f"{max(len(row) for row in rows)} takes every row in",
        )
    if dropped:
        current_progress().log(f"{dropped} of {len(rows)} rows are longer than {max_tokens} tokens and left out")
    return usable, dropped


def _train(trainer: ResponseTrainer, checkpoints: Path) -> None:
    """Train to the end, from the newest whole checkpoint where there is one."""
    newest, dropped = keep_whole(checkpoints)
    if dropped:
        current_progress().log(f"dropped unfinished checkpoints: {', '.join(dropped)}")
    if newest is not None:
        current_progress().log(f"going on after step {step_of(newest)} of {trainer.args.max_steps}")
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)


def _save_adapter(model: PeftModel, folder: Path) -> None:
    """Leave PEFT's two files in `folder`: no model card, no path of the base model, target modules in order."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    for item in folder.iterdir():
        if item.name not in ADAPTER_FILES:
            item.unlink()
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_curve(trainer: ResponseTrainer, trained: list[ResponseRow], counts: dict[str, int], folder: Path) -> None:
    """Leave the training curve in `folder`: loss in nats, learning rate and response tokens of each step, no times."""
    size = trainer.args.train_batch_size
    tokens = [sum(len(row.response) for row in trained[at : at + size]) for at in range(0, len(trained), size)]
    steps = [
        {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"], "tokens": batch}
        for entry, batch in zip((log for log in trainer.state.log_history if "loss" in log), tokens, strict=True)
    ]
    trainable = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)  # pyright: ignore
    curve = counts | {"trainable_parameters": trainable, "steps": steps}
    (folder / CURVE_FILE).write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
