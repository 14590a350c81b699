"""One LoRA training by one tool in a process of its own: losses, seconds of each step, peak GPU memory.

    python -m benchmarks.gpu.lora_run press|peft --model FOLDER --rows FILE --work FOLDER --result FILE

press trains on the folder of an awq model, PEFT with transformers' Trainer on that of the base model, on the same rows
in the same order and with the same options. From folder to adapter; imports and the start of CUDA do not count. It
prints the number of each step that it finished.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from resources.olive.lora_adapter import PASSES, LoraOptions, lora_run_config, training_args
from resources.progress import RecordedProgress

# The published lab: rank 64, 100 steps.
OPTIONS = LoraOptions(
    r=64,
    alpha=64.0,
    dropout=0.0,
    target_modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    steps=100,
    batch_size=8,
    learning_rate=2e-4,
    warmup_steps=3,
    max_tokens=256,
    checkpoint_steps=10,
    seed=0,
)


class TimedProgress(RecordedProgress):
    """Keeps when each step of the training ended, and prints it, so that whoever watches can end the process."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[float] = []

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == "lora":
            self.ended.append(time.perf_counter())
            print(done, flush=True)


def main() -> None:
    options = _options()
    import olive.workflows  # noqa: F401
    import torch

    import resources.olive.passes.lora  # noqa: F401

    torch.ones(1, device=options.device)
    progress = TimedProgress()
    wanted = LoraOptions(**{**vars(OPTIONS), "steps": options.steps, "batch_size": options.batch_size})
    run = _press if options.tool == "press" else _peft
    start = time.perf_counter()
    losses = run(options, wanted, progress)
    seconds = time.perf_counter() - start
    ended = progress.ended
    result: dict[str, Any] = {
        "seconds": seconds,
        "before": ended[0] - start,
        "steps": [after - before for before, after in itertools.pairwise(ended)],
        "losses": losses,
        "lines": progress.lines,
    }
    if options.device == "cuda":
        result["peak_gb"] = torch.cuda.max_memory_reserved() / 1e9
    options.result.write_text(json.dumps(result), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tool", choices=("press", "peft"))
    for name in ("model", "rows", "work", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    parser.add_argument("--batch-size", type=int, default=OPTIONS.batch_size)
    return parser.parse_args()


def _press(options: argparse.Namespace, wanted: LoraOptions, progress: TimedProgress) -> list[float]:
    """The lora_adapter stage's workflow; goes on from a checkpoint in `options.work` where there is one."""
    from resources.olive.unhashed import unhashed
    from resources.olive.workflow import run_workflow

    checkpoints = options.work / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    run_config = lora_run_config(options.model, options.rows, checkpoints, wanted, options.device)
    run_workflow(unhashed(run_config), options.work / "adapter", progress, PASSES)
    curve = json.loads((options.work / "adapter" / "training_curve.json").read_text(encoding="utf-8"))
    return [step["loss"] for step in curve["steps"]]


def _peft(options: argparse.Namespace, wanted: LoraOptions, progress: TimedProgress) -> list[float]:
    """PEFT and transformers' Trainer on the base model, with the arguments that press gives the Trainer."""
    import torch
    from olive.data.constants import IGNORE_INDEX
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from resources.olive.passes.response_rows import tokenised_rows, training_order

    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    rows = [row for row in tokenised_rows(options.rows, tokenizer) if len(row) <= wanted.max_tokens]
    order = training_order([len(row) for row in rows], wanted.steps, wanted.batch_size, wanted.seed)
    arguments = training_args(options.work / "checkpoints", wanted, options.device)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    base: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, local_files_only=True)
    torch.manual_seed(wanted.seed)
    lora = LoraConfig(
        r=wanted.r,
        lora_alpha=int(wanted.alpha),
        lora_dropout=wanted.dropout,
        target_modules=list(wanted.target_modules),
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base.to(options.device), lora)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=[rows[row].sample() for row in order],
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX),
        callbacks=[_reporter(progress)],
    )
    trainer.train()
    model.save_pretrained(options.work / "adapter")
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _reporter(progress: TimedProgress) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                progress.step("lora", state.global_step, state.max_steps)

    return Reporter()


if __name__ == "__main__":
    main()
