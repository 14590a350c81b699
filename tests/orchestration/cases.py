"""One experiment of many in one project, and the ways a user changes its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Case:
    """One experiment of the project, with data, base model and calibration text of its own."""

    root: Path
    name: str

    @property
    def file(self) -> Path:
        return self.root / "experiments" / f"{self.name}.yaml"

    @property
    def folder(self) -> Path:
        return self.root / "cases" / self.name

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    @property
    def base_model(self) -> Path:
        return self.folder / "base_model"

    def create(self, document: Mapping[str, Any], rows: Path, base_model: Path, text: str) -> None:
        """Write the experiment `document` with copies of its inputs; what lay there before is replaced."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        shutil.copy(rows, self.rows)
        shutil.copytree(base_model, self.base_model)
        self.text.write_bytes(text.encode())
        own = {
            "base_model": {"folder": f"cases/{self.name}/base_model"},
            "dataset": {**document["dataset"], "path": f"cases/{self.name}/rows.jsonl"},
            "awq_model": {**document["awq_model"], "calibration_text": f"cases/{self.name}/text.txt"},
        }
        self.file.write_text(yaml.safe_dump({**document, **own}))

    def document(self) -> dict[str, Any]:
        return yaml.safe_load(self.file.read_text())

    def set(self, place: str, value: Any) -> None:
        """Set the value at `place` ("section.field") of the experiment file."""
        document = self.document()
        *sections, name = place.split(".")
        inner = document
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
        self.file.write_text(yaml.safe_dump(document))


Change = Callable[[Case], None]
Place = Callable[[Case], Path]


def rewritten(edit: Callable[[bytes], bytes], place: Place) -> Change:
    """The file written anew, as an editor does."""

    def change(case: Case) -> None:
        file = place(case)
        edited = edit(file.read_bytes())
        assert edited != file.read_bytes()
        file.write_bytes(edited)

    return change


def unnoticeably(edit: Callable[[bytes], bytes], place: Place) -> Change:
    """The bytes changed in place, size and modification time as they were."""

    def change(case: Case) -> None:
        file = place(case)
        before, stamp = file.read_bytes(), file.stat()
        edited = edit(before)
        assert edited != before and len(edited) == len(before)
        with file.open("r+b") as opened:
            opened.write(edited)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert file.stat().st_mtime_ns == stamp.st_mtime_ns

    return change


def both(*changes: Change) -> Change:
    def change(case: Case) -> None:
        for one in changes:
            one(case)

    return change


def setting(place: str, value: Any) -> Change:
    return lambda case: case.set(place, value)


def touched(place: Place) -> Change:
    return lambda case: os.utime(place(case), (1_000_000_000, 1_000_000_000))


def copied(place: Place) -> Change:
    """The file replaced by a copy of itself: another inode, the same bytes."""

    def change(case: Case) -> None:
        file = place(case)
        copy = shutil.copy(file, file.with_name("copy"))
        Path(copy).replace(file)

    return change


def renamed(place: Place, setting_of_it: str) -> Change:
    """The file renamed, and named so in the experiment."""

    def change(case: Case) -> None:
        file = place(case)
        target = file.rename(file.with_name(f"other-{file.name}"))
        case.set(setting_of_it, str(target.relative_to(case.root)))

    return change


def rows(case: Case) -> Path:
    return case.rows


def text(case: Case) -> Path:
    return case.text


def base(name: str) -> Place:
    return lambda case: case.base_model / name


def linked(edit: Callable[[bytes], bytes]) -> Change:
    """The rows replaced by a symbolic link to edited ones of another name."""

    def change(case: Case) -> None:
        target = case.rows.rename(case.rows.with_name("behind.jsonl"))
        case.rows.symlink_to(target.name)
        target.write_bytes(edit(target.read_bytes()))

    return change


def swapped(one: str, other: str) -> Change:
    """Two files of the base model with each other's content."""

    def change(case: Case) -> None:
        first, second = (case.base_model / one).read_bytes(), (case.base_model / other).read_bytes()
        (case.base_model / one).write_bytes(second)
        (case.base_model / other).write_bytes(first)

    return change
