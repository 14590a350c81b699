"""Logits of the PyTorch side: the awq model's dequantized weights, with the PEFT adapter or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.placement import placed

if TYPE_CHECKING:
    import numpy as np


class PytorchReference:
    """The olive-quantized folder `awq_model` with the PEFT adapter in `lora_adapter`, in float32 on `device`."""

    def __init__(
        self, awq_model: Path, lora_adapter: Path, device: str = "cpu", trust_remote_code: bool = False
    ) -> None:
        from peft import PeftModel

        from resources.olive.awq_folder import load_dequantized

        base = load_dequantized(awq_model, "float32", device, trust_remote_code, whole=False)
        self._model: Any = placed(PeftModel.from_pretrained(base, str(lora_adapter)).eval(), device)
        self._device = device

    def logits(self, token_ids: Sequence[int], adapted: bool) -> np.ndarray:
        """[tokens, vocabulary], float32: row i holds the logits of the token after position i."""
        import torch

        ids = torch.tensor([list(token_ids)], device=self._device)
        with torch.inference_mode():
            if adapted:
                return self._model(ids).logits[0].float().cpu().numpy()
            with self._model.disable_adapter():
                return self._model(ids).logits[0].float().cpu().numpy()
