"""Where in a published model its Hugging Face folder lies: catalogs wrap it in folders of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from posixpath import basename, dirname, join, normpath

from resources.errors import ConfigurationError
from resources.model_folder import PICKLED, TEXT_FILES

WEIGHTS = "*.safetensors"
# Beside the weights, as MLflow lays a transformers model out; a file that lies with the weights comes first.
COMPANIONS = ("../config", "../tokenizer", "../components/tokenizer")


def wanted_files(paths: Collection[str], place: str, trust_remote_code: bool = False) -> dict[str, str]:
    """File name → its path among `paths` (relative, with slashes), for the files of the one Hugging Face folder in it.

    Settings and tokenizer count, safetensors weights, and Python code with `trust_remote_code`. A ConfigurationError
    at `place` says what is there instead when that is none, or more than one.
    """
    folder = _weights_folder(paths, place)
    patterns = (*TEXT_FILES, *(("*.py",) if trust_remote_code else ()))
    found: dict[str, str] = {}
    for where in (folder, *(normpath(join(folder, companion)) for companion in COMPANIONS)):
        accepted = (*patterns, WEIGHTS) if where == folder else TEXT_FILES
        for path in sorted(paths):
            if dirname(path) == ("" if where == "." else where) and _is_any(basename(path), accepted):
                found.setdefault(basename(path), path)
    return found


def _weights_folder(paths: Collection[str], place: str) -> str:
    """The folder with the weights; the one nearest to the top, where it is alone there."""
    folders = {dirname(path) for path in paths if _is_any(basename(path), (WEIGHTS,))}
    settled = {folder for folder in folders if _has_config(folder, paths)}
    if not settled:
        raise ConfigurationError(
            place, _instead(paths), "a folder with config.json and safetensors weights", _remedy(paths)
        )
    top = min(_depth(folder) for folder in settled)
    highest = sorted(folder for folder in settled if _depth(folder) == top)
    if len(highest) > 1:
        found = f"{len(highest)} folders with weights: {', '.join(highest[:5])}"
        raise ConfigurationError(place, found, "one model", "Download the one that is meant and name it as folder")
    return highest[0]


def _has_config(folder: str, paths: Collection[str]) -> bool:
    return any(normpath(join(folder, where, "config.json")) in paths for where in (".", COMPANIONS[0]))


def _instead(paths: Collection[str]) -> str:
    names = sorted({basename(path) for path in paths})
    pickled = [name for name in names if _is_any(name, PICKLED)]
    if pickled:
        return f"pickled weights ({', '.join(pickled[:3])}) and no safetensors"
    if "genai_config.json" in names or any(name.endswith(".onnx") for name in names):
        return "an ONNX model"
    return f"{len(names)} files ({', '.join(names[:5])}{', …' if names[5:] else ''})" if names else "no file"


def _remedy(paths: Collection[str]) -> str:
    return "Name the float model that it was made from" if "ONNX" in _instead(paths) else ""


def _depth(folder: str) -> int:
    return len([part for part in folder.split("/") if part])


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
