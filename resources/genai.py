"""The only importer of onnxruntime_genai: opens a GenAI folder and answers prompts with it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError
from resources.olive.baked_adapter import GRAPH_FILE, baked_graph

CONFIG_FILE = "genai_config.json"
GRAPH_SUMMARY = "graph.json"
HEEDED_SWITCHES = {"phi3": 4096, "phimoe": 4096, "phi3small": 8192}
ADAPTER_SUFFIX = ".onnx_adapter"


@dataclass(frozen=True)
class Generation:
    """One answer: its text, its tokens with the one that ends the turn, seconds in all and to the first token."""

    text: str
    tokens: int
    seconds: float
    first_token_seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Decode speed: tokens after the first over the time after the first."""
        decoding = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / decoding if self.tokens > 1 and decoding > 0 else 0.0


def decode_speed(answers: Sequence[Generation]) -> float:
    """Tokens a second after each answer's first token; NaN when no answer has a second one."""
    tokens = sum(answer.tokens - 1 for answer in answers if answer.tokens > 1)
    seconds = sum(answer.seconds - answer.first_token_seconds for answer in answers if answer.tokens > 1)
    return tokens / seconds if seconds > 0 else math.nan


def adapter_names(folder: Path) -> list[str]:
    """Names of the adapters in a GenAI folder, sorted."""
    return sorted(file.name.removesuffix(ADAPTER_SUFFIX) for file in (folder / "adapters").glob("*" + ADAPTER_SUFFIX))


def _rope_switch(folder: Path, kind: str) -> int:
    """The longest sequence that takes the short rotary factors, where ONNX Runtime GenAI does not heed it; -1 else.

    Beyond it a model takes its long factors, for the tokens before, too. ONNX Runtime GenAI 0.18 recomputes their keys
    for a few kinds of models, at a length that it has by heart.
    """
    file = folder / GRAPH_SUMMARY
    switch = json.loads(file.read_text(encoding="utf-8")).get("rope_switch") if file.is_file() else None
    return -1 if switch is None or switch == HEEDED_SWITCHES.get(kind) else switch


class GenaiModel:
    """A GenAI folder, opened once; answers with `adapter`, or with the base alone where it is None.

    A folder that ONNX Runtime GenAI cannot open, and an unknown adapter, are a ConfigurationError.
    """

    def __init__(self, folder: Path, adapter: str | None = None) -> None:
        if not (folder / CONFIG_FILE).is_file():
            raise ConfigurationError(str(folder), f"no {CONFIG_FILE}", "an ONNX Runtime GenAI folder")
        self._check_adapter(folder, adapter)
        self._og: Any = import_module("onnxruntime_genai")  # it ships no types
        self._folder = folder
        self._adapter = adapter
        self._models: dict[str, Any] = {}  # by the file of their graph
        try:
            self._tokenizer = self._og.Tokenizer(self._model())
            self._adapters = self._load_adapters()
        except RuntimeError as error:  # what onnxruntime_genai raises for everything
            raise ConfigurationError(
                str(folder),
                f"a model that does not open ({' '.join(str(error).split())})",
                "a complete ONNX Runtime GenAI folder",
                "press store verify finds damaged files",
            ) from error
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        self._context_length: int = config["model"]["context_length"]
        self._rope_switch = _rope_switch(folder, config["model"]["type"])

    def use_adapter(self, adapter: str | None) -> None:
        """Answer with `adapter` from now on; an unknown name is a ConfigurationError."""
        self._check_adapter(self._folder, adapter)
        self._adapter = adapter

    def chat_token_ids(self, prompt: str) -> list[int]:
        """The token ids of one user turn in the model's chat template, up to where the answer begins."""
        messages = json.dumps([{"role": "user", "content": prompt}])
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return [int(token) for token in self._tokenizer.encode(text)]

    def generate(self, prompt: str, max_new_tokens: int, on_text: Callable[[str], None] | None = None) -> Generation:
        """The greedy answer to `prompt`; `on_text` gets its pieces as they come.

        A prompt that leaves no room in the model's context is a ConfigurationError.
        """
        token_ids = self.chat_token_ids(prompt)
        room = self._context_length - len(token_ids)
        if room < 1:
            raise ConfigurationError("prompt", f"{len(token_ids)} tokens", f"fewer than {self._context_length}")
        started = time.perf_counter()
        generator = self.open_generator(len(token_ids) + min(max_new_tokens, room))
        generator.append_tokens(token_ids)
        stream = self._tokenizer.create_stream()
        stops = set(self._tokenizer.eos_token_ids)
        pieces: list[str] = []
        tokens, first = 0, 0.0
        while not generator.is_done() and tokens < max_new_tokens:
            if len(token_ids) == self._rope_switch + 1 and tokens > 0:
                generator.rewind_to(0)  # the cache holds keys of the short factors
                generator.append_tokens(token_ids)
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            token_ids.append(token)
            tokens += 1
            first = first or time.perf_counter() - started
            if token in stops:
                break
            pieces.append(stream.decode(token))
            if on_text:
                on_text(pieces[-1])
        return Generation("".join(pieces).strip(), tokens, time.perf_counter() - started, first)

    def open_generator(self, max_length: int) -> Any:
        """A generator of ONNX Runtime GenAI with the adapter in use, greedy, with room for `max_length` tokens."""
        model = self._model()
        params = self._og.GeneratorParams(model)
        params.set_search_options(max_length=max_length, do_sample=False)
        generator = self._og.Generator(model, params)
        if self._adapter is not None and self._baked() is None:
            generator.set_active_adapter(self._adapters, self._adapter)
        return generator

    def _model(self) -> Any:
        """The graph that answers with the adapter in use, opened the first time; each holds the base's weights."""
        graph = self._baked() or GRAPH_FILE
        if graph not in self._models:
            config = self._og.Config(str(self._folder))
            config.overlay(json.dumps({"model": {"decoder": {"filename": graph}}}))
            self._models[graph] = self._og.Model(config)
        return self._models[graph]

    def _baked(self) -> str | None:
        """The graph for the adapter in use and no other; None where the folder's own graph is for all of them."""
        graph = baked_graph(self._adapter)
        return graph if (self._folder / graph).is_file() else None

    def _load_adapters(self) -> Any:
        adapters = self._og.Adapters(self._model())
        for name in adapter_names(self._folder):
            adapters.load(str(self._folder / "adapters" / (name + ADAPTER_SUFFIX)), name)
        return adapters

    @staticmethod
    def _check_adapter(folder: Path, adapter: str | None) -> None:
        known = adapter_names(folder)
        if adapter is not None and adapter not in known:
            raise ConfigurationError("--adapter", repr(adapter), ", ".join(known) or "none: this model has no adapter")
