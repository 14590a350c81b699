"""Logits of an ONNX graph for a given sequence, all positions in one run with an empty key-value cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class TeacherForcedGraph:
    """model.onnx of a GenAI folder on the CPU, with `adapter` (a name in adapters/) or the base alone."""

    def __init__(self, folder: Path, adapter: str | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
        self._cache_shape = (1, config["num_key_value_heads"], 0, config["head_size"])
        self._loaded: Any = None
        self._run_options = onnxruntime.RunOptions()
        if adapter is not None:
            self._loaded = onnxruntime.LoraAdapter()
            self._loaded.Load(str(folder / "adapters" / f"{adapter}.onnx_adapter"))
            self._run_options.add_active_adapter(self._loaded)

    def logits(self, token_ids: list[int]) -> np.ndarray:
        """[tokens, vocabulary], float32: row i holds the logits of the token after position i."""
        import numpy as np

        tokens = np.asarray([token_ids], np.int64)
        feeds: dict[str, np.ndarray] = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        for value in self._session.get_inputs():
            if value.name.startswith("past_key_values."):
                dtype = np.float16 if "float16" in value.type else np.float32
                feeds[value.name] = np.zeros(self._cache_shape, dtype)
        result: Any = self._session.run(["logits"], feeds, self._run_options)
        return result[0][0].astype(np.float32)
