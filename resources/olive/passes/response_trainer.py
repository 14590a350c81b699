"""transformers' Trainer with the loss on the responses only, sealed checkpoints and a live figure."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from olive.data.constants import IGNORE_INDEX
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from resources.errors import StageError
from resources.olive.passes.checkpoint_pace import CheckpointPace
from resources.olive.passes.checkpoints import PREFIX, seal
from resources.progress import Progress


class ResponseTrainer(Trainer):
    """Trains on the mean negative log-likelihood of a batch's response tokens, and ends at a loss that is no number."""

    def __init__(self, progress: Progress, switch: int | None, **arguments: Any) -> None:
        """switch: the longest row that takes the short rotary factors, where the model has two sets of them."""
        self.switch = switch
        super().__init__(**arguments, callbacks=[_Reporter(progress)])
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, a scalar."""
        loss = response_loss(model, inputs, self.switch)
        if not math.isfinite(loss.item()):
            raise StageError(
                "lora_adapter",
                f"the loss is {loss.item()} at step {self.state.global_step + 1} of {self.state.max_steps}",
                "lower lora_adapter.learning_rate or lora_adapter.alpha; "
                "when it is so at step 1, the awq model itself gives no finite answer",
            )
        return loss


def response_loss(model: Any, batch: dict[str, torch.Tensor], switch: int | None = None) -> torch.Tensor:
    """Mean negative log-likelihood, in nats, of the tokens in `batch["labels"]` that are not IGNORE_INDEX.

    batch: input_ids, attention_mask, labels, each [rows, tokens]. Rows of at most `switch` tokens and longer ones go
    through the model apart, because the longest row of a batch decides which rotary factors all of its rows take.
    """
    parts = _same_factors(batch, switch)
    if len(parts) == 1:
        return _loss(model, batch)
    weights = [(part["labels"] != IGNORE_INDEX).sum() for part in parts]
    total = sum(_loss(model, part) * weight for part, weight in zip(parts, weights, strict=True))
    return total / sum(weights)  # pyright: ignore[reportReturnType]


def _same_factors(batch: dict[str, torch.Tensor], switch: int | None) -> list[dict[str, torch.Tensor]]:
    """The batch, or its short rows and its long ones, each without the columns that only pad."""
    lengths = batch["attention_mask"].sum(dim=1)
    if switch is None or (lengths > switch).all() or (lengths <= switch).all():
        return [batch]
    sides = [(side, int(lengths[side].max())) for side in (lengths <= switch, lengths > switch)]
    return [{name: values[side, :longest] for name, values in batch.items()} for side, longest in sides]


def _loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean over one batch that goes through the model at once. The head is applied from the first position that
    predicts a response token on: with a large vocabulary it is a good part of the work.
    """
    labels = batch["labels"]
    first = int((labels != IGNORE_INDEX).any(dim=0).nonzero()[0])
    positions = torch.arange(first - 1, labels.shape[1] - 1, device=labels.device)
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, logits_to_keep=positions
    ).logits
    return cross_entropy(logits.flatten(0, 1).float(), labels[:, first:].flatten(), ignore_index=IGNORE_INDEX)


class _Reporter(TrainerCallback):
    """Tells the progress after each step, keeps the pace of the checkpoints, and seals each beside the training."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._pace = CheckpointPace()
        self._began = 0.0
        self._sealer = ThreadPoolExecutor(1)
        self._sealing: Future[None] | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.progress.step("lora", state.global_step, state.max_steps, f"loss {logs['loss']:.2f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.monotonic()
        is_last = state.global_step >= state.max_steps
        control.should_save = control.should_save and (is_last or self._pace.is_due(self._began))
        if control.should_save:
            self._wait()  # the Trainer drops the oldest checkpoint, so that the one before must be whole

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._pace.saved(self._began, time.monotonic())
        self._sealing = self._sealer.submit(seal, Path(args.output_dir) / f"{PREFIX}{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._wait()

    def _wait(self) -> None:
        if self._sealing is not None:
            self._sealing.result()
