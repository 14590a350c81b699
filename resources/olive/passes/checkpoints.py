"""Checkpoints that a kill cannot spoil: one counts only when the digests of all its files are written beside them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

PREFIX = "checkpoint-"  # transformers' Trainer names the folders so
SEAL = "sealed.json"


def seal(checkpoint: Path) -> None:
    """Mark `checkpoint` as whole; called once the Trainer has written all of it."""
    content = json.dumps(_digests(checkpoint), indent=1, sort_keys=True)
    unfinished = checkpoint.with_name(f".{checkpoint.name}.{SEAL}")
    unfinished.write_text(content, encoding="utf-8")
    unfinished.replace(checkpoint / SEAL)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of `checkpoint` is there as it was sealed."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return False
    return sealed == _digests(checkpoint)


def keep_whole(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in `folder`, if any, and the names of those dropped because they are not whole."""
    dropped: list[str] = []
    whole: list[Path] = []
    for checkpoint in folder.glob(f"{PREFIX}*"):
        if is_whole(checkpoint):
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
            dropped.append(checkpoint.name)
    return max(whole, key=step_of, default=None), sorted(dropped)


def step_of(checkpoint: Path) -> int:
    """The number of training steps that `checkpoint` holds."""
    return int(checkpoint.name.removeprefix(PREFIX))


def _digests(checkpoint: Path) -> dict[str, str]:
    return {
        file.relative_to(checkpoint).as_posix(): _digest(file)
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != SEAL
    }


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
