"""Logits of an ONNX graph for a given sequence, all positions in one run with an empty key-value cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.olive.baked_adapter import GRAPH_FILE, baked_graph

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime


class TeacherForcedGraph:
    """The graphs of a GenAI folder that answer, each opened once, on the provider they were built for.

    ONNX Runtime itself and not GenAI, which gives the same logits in twice the time (SmolLM2, 121 tokens, 2 cores).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
        self._providers = _providers(config)
        self._cache_shape = (1, config["num_key_value_heads"], 0, config["head_size"])
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._run_options: dict[str, tuple[Any, Any]] = {}

    def logits(self, token_ids: Sequence[int], adapter: str | None = None) -> np.ndarray:
        """[tokens, vocabulary], float32: row i holds the logits of the token after position i.

        With `adapter`, a name in the folder's adapters/, or with the base alone.
        """
        import numpy as np

        tokens = np.asarray([token_ids], np.int64)
        graph = baked_graph(adapter)
        is_baked = (self._folder / graph).is_file()
        session = self._session(graph if is_baked else GRAPH_FILE)
        feeds: dict[str, np.ndarray] = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        for value in session.get_inputs():
            if value.name.startswith("past_key_values."):
                dtype = np.float16 if "float16" in value.type else np.float32
                feeds[value.name] = np.zeros(self._cache_shape, dtype)
        result: Any = session.run(["logits"], feeds, None if is_baked else self._options_for(adapter))
        return result[0][0].astype(np.float32, copy=False)

    def _session(self, graph: str) -> onnxruntime.InferenceSession:
        import onnxruntime

        if graph not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            # PyTorch works between two runs: waiting threads must not spin meanwhile
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            file = str(self._folder / graph)
            self._sessions[graph] = onnxruntime.InferenceSession(file, options, providers=self._providers)
        return self._sessions[graph]

    def _options_for(self, adapter: str | None) -> Any:
        import onnxruntime

        if adapter is None:
            return None
        if adapter not in self._run_options:
            loaded, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
            loaded.Load(str(self._folder / "adapters" / f"{adapter}.onnx_adapter"))
            options.add_active_adapter(loaded)
            self._run_options[adapter] = (loaded, options)  # the options do not keep the adapter alive
        return self._run_options[adapter][1]


def _providers(decoder: dict[str, Any]) -> list[str]:
    named = {name.lower() for one in decoder["session_options"].get("provider_options", []) for name in one}
    return [*(["CUDAExecutionProvider"] if "cuda" in named else []), "CPUExecutionProvider"]
