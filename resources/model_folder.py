"""A causal language model in Hugging Face format: which files make it, and whether they can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resources.errors import ConfigurationError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
TEXT_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
HEADER_LIMIT = 100 << 20  # the safetensors format's own limit


def model_files(folder: Path, place: str, trust_remote_code: bool = False) -> list[Path]:
    """The files of `folder` that are the model, sorted by name: settings, tokenizer, safetensors weights.

    Its own Python code belongs to it only with `trust_remote_code`. Anything that cannot be pressed is a
    ConfigurationError at `place`.
    """
    if not folder.is_dir():
        raise ConfigurationError(place, f"no folder {folder}", "a folder in Hugging Face format")
    _check_config(folder, place)
    _check_tokenizer(folder, place)
    weights = _weight_files(folder, place)
    for file in weights:
        _check_safetensors(file, place)
    patterns = (*TEXT_FILES, "*.py") if trust_remote_code else TEXT_FILES
    texts = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted({*texts, *weights})


def _check_config(folder: Path, place: str) -> None:
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigurationError(place, f"no config.json in {folder}", "a folder in Hugging Face format")
    config = _read_json(file, place)
    architectures = config.get("architectures") or []
    if not any(str(name).endswith("ForCausalLM") for name in architectures):
        found = ", ".join(map(str, architectures)) or "no architectures"
        raise ConfigurationError(f"{place}: {file}", found, "a causal language model (an architecture ...ForCausalLM)")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise ConfigurationError(
            f"{place}: {file}", f"weights quantized with {method}", "float weights", "Name the unquantized model"
        )


def _check_tokenizer(folder: Path, place: str) -> None:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ConfigurationError(place, f"no tokenizer in {folder}", "one of " + ", ".join(TOKENIZERS))
    settings = folder / "tokenizer_config.json"
    in_settings = settings.is_file() and _read_json(settings, place).get("chat_template")
    if not (in_settings or (folder / "chat_template.jinja").is_file()):
        raise ConfigurationError(
            place,
            f"no chat template in {folder}",
            "chat_template.jinja, or chat_template in tokenizer_config.json",
            "Name the instruct variant of the model: rows are trained on as chats",
        )


def _weight_files(folder: Path, place: str) -> list[Path]:
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX, place).get("weight_map")
        names = sorted(set(weight_map.values())) if isinstance(weight_map, dict) else []
        strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
        if not names or strange:
            raise ConfigurationError(
                f"{place}: {folder / INDEX}", f"weight_map naming {strange or 'no file'}", "file names"
            )
    else:
        names = [WEIGHTS]
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in names]
    pickled = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickled:
        raise ConfigurationError(
            place,
            f"pickled weights ({', '.join(pickled[:3])}) and no {missing[0]}",
            "safetensors weights; loading a pickle can run any code",
            "Convert them where you trust them: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)",
        )
    raise ConfigurationError(
        place, f"no {', '.join(missing[:3])} in {folder}", f"{WEIGHTS}, or {INDEX} with all its shards"
    )


def _check_safetensors(file: Path, place: str) -> None:
    """The header says how long the file is, so that a cut-off download is noticed without reading the weights."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        if (start + stream.read(16)).startswith(b"version https://git"):
            raise ConfigurationError(
                f"{place}: {file}", "a Git LFS pointer", "the weights themselves", "Run git lfs pull"
            )
        length = int.from_bytes(start, "little")
        stream.seek(8)
        header = stream.read(length) if len(start) == 8 and length <= min(size, HEADER_LIMIT) else b""
    try:
        tensors = json.loads(header)
        end = max(entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ConfigurationError(
            f"{place}: {file}", "a broken header", "a safetensors file", "Download it again"
        ) from None
    if size != 8 + length + end:
        raise ConfigurationError(
            f"{place}: {file}", f"{size} bytes", f"{8 + length + end} bytes, as its header says", "Download it again"
        )


def _read_json(file: Path, place: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{place}: {file}", f"broken JSON ({error})", "a JSON object") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{place}: {file}", type(document).__name__, "a JSON object")
    return document
