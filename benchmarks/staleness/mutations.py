"""The mutation table: what a user changes, and which stages must be executed for it.

The truth follows from what decides a stage's result, not from any tool: a stage must be executed when a setting that it
uses, the code or the tools behind it, or a file that it reads became one that it never saw. Nothing else needs work:
not another name, time, folder or formatting, and nothing after a stage whose files come out as they were. Report and
registration differ whenever the evaluation is repeated, because it measures speed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from assets.recipes import STAGE_NAMES
from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import CITIES, Workspace, line, of_side, read_document, row, rows

Change = Callable[[Workspace, Tool], None]
Edit = Callable[[bytes], bytes]
Place = Callable[[Workspace], Path]

NOTHING: frozenset[str] = frozenset()
DATASET = frozenset({"dataset"})
REGISTERED_MODEL = frozenset({"registered_model"})
EVAL_REPORT = REGISTERED_MODEL | {"eval_report"}
ONNX_MODEL = EVAL_REPORT | {"onnx_model"}
LORA_ADAPTER = ONNX_MODEL | {"lora_adapter"}
AWQ_MODEL = LORA_ADAPTER | {"awq_model"}
TRAIN_ROWS = LORA_ADAPTER | DATASET
EVAL_ROWS = EVAL_REPORT | DATASET


@dataclass(frozen=True)
class Mutation:
    """A change and the stages that must be executed after it.

    before: what is changed, and brought up to date, ahead of it.
    living: made in a workspace that the tool has looked at since it was copied, so that it knows every file's times.
    quick: one of the few that --quick measures.
    """

    name: str
    change: Change
    stale: frozenset[str]
    before: Change | None = None
    living: bool = False
    quick: bool = False

    def __post_init__(self) -> None:
        assert self.stale <= set(STAGE_NAMES), self.name


def setting(place: str, value: Any) -> Change:
    return lambda workspace, tool: workspace.set(place, value)


def rewritten(place: Place, edit: Edit) -> Change:
    """The file written anew, as an editor does."""

    def change(workspace: Workspace, tool: Tool) -> None:
        file = place(workspace)
        edited = edit(file.read_bytes())
        _check_changed(file, edited)
        file.write_bytes(edited)

    return change


def unnoticeably(place: Place, edit: Edit) -> Change:
    """The bytes changed in place; size and modification time stay as they were."""

    def change(workspace: Workspace, tool: Tool) -> None:
        file = place(workspace)
        before, stamp = file.read_bytes(), file.stat()
        edited = edit(before)
        _check_changed(file, edited)
        assert len(edited) == len(before)
        with file.open("r+b") as opened:
            opened.write(edited)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    return change


def replaced(file: str, old: str, new: str) -> Change:
    """`old`, which the file of the workspace holds once, replaced by `new`."""

    def edit(text: bytes) -> bytes:
        if text.count(old.encode()) != 1:
            raise ValueError(f"{file}: {old!r} is there {text.count(old.encode())} times; the benchmark needs it once")
        return text.replace(old.encode(), new.encode())

    return rewritten(_module(file), edit)


def another_line(file: str) -> Change:
    """A line of source at the end of a module, which changes no result."""
    return rewritten(_module(file), lambda text: text + b"\nANOTHER_LINE = 1\n")


def another_version(distribution: str, version: str) -> Change:
    """Another version of an installed package, as its metadata tells it."""

    def change(workspace: Workspace, tool: Tool) -> None:
        site = workspace.root / "site"
        metadata = site / f"{distribution.replace('-', '_')}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8")
        workspace.environment["PYTHONPATH"] = str(site)

    return change


def _check_changed(file: Path, edited: bytes) -> None:
    if edited == file.read_bytes():
        raise ValueError(f"{file}: the benchmark's edit changes nothing")


def _module(file: str) -> Place:
    return lambda workspace: workspace.root / file


def _rows(workspace: Workspace) -> Path:
    return workspace.rows


def _text(workspace: Workspace) -> Path:
    return workspace.text


def _weights(workspace: Workspace) -> Path:
    return workspace.base_model / "model.safetensors"


def _experiment(workspace: Workspace) -> Path:
    return workspace.experiment_file


def _response_of(side: str, old: str, new: str) -> Edit:
    """One response of `side` with `new` in the place of `old`."""
    city = of_side(side, CITIES)[0]
    prompt = row(city)["prompt"]
    assert prompt in {one["prompt"] for one in rows()}

    def edit(lines: bytes) -> bytes:
        changed = [
            one.replace(old.encode(), new.encode()) if prompt.encode() in one else one for one in lines.splitlines()
        ]
        return b"".join(one + b"\n" for one in changed)

    return edit


def _reformatted(lines: bytes) -> bytes:
    """The same rows with the keys in another order and other white space."""
    documents = [json.loads(one) for one in lines.splitlines()]
    return "".join(
        json.dumps(dict(reversed(one.items())), separators=(" ,  ", " :  ")) + "\n" for one in documents
    ).encode()


def _appended(workspace: Workspace, tool: Tool) -> None:
    city = of_side("train", ["Ghent", "Basel", "Split", "Malmo"])[0]
    with workspace.rows.open("a", encoding="utf-8") as file:
        file.write(line(row(city)))


def _renamed_rows(workspace: Workspace, tool: Tool) -> None:
    workspace.rows.rename(workspace.root / "data" / "travel.jsonl")
    workspace.set("dataset.path", "data/travel.jsonl")
    tool.follow(workspace)


def _touched(workspace: Workspace, tool: Tool) -> None:
    for file in (*workspace.base_model.iterdir(), workspace.text, workspace.rows, workspace.experiment_file):
        os.utime(file)


def _with_readme(workspace: Workspace, tool: Tool) -> None:
    (workspace.base_model / "README.md").write_text("About it.\n", encoding="utf-8")


def _reordered_experiment(workspace: Workspace, tool: Tool) -> None:
    document = dict(reversed(workspace.document().items()))
    text = "# Another comment\n" + yaml.safe_dump(document, sort_keys=True)
    workspace.experiment_file.write_text(text, encoding="utf-8")


def _other_experiment(workspace: Workspace, tool: Tool) -> None:
    file = workspace.root / "experiments" / "other.yaml"
    document = read_document(file)
    document["lora_adapter"]["r"] = 8
    file.write_text(yaml.safe_dump(document), encoding="utf-8")


def _moved(workspace: Workspace, tool: Tool) -> None:
    workspace.root = Path(shutil.move(workspace.root, workspace.root.with_name(f"{workspace.root.name}-moved")))


def _moved_home(workspace: Workspace, tool: Tool) -> None:
    tool.move_home(workspace)


SETTINGS = (
    Mutation("another split", setting("dataset.eval_fraction", 0.3), TRAIN_ROWS),
    Mutation("more damaged rows allowed, and there are none", setting("dataset.max_damaged", 1), DATASET, quick=True),
    Mutation("another seed of the calibration", setting("awq_model.seed", 1), AWQ_MODEL),
    Mutation("AWQ measured on more samples", setting("awq_model.measure_samples", 2), frozenset({"awq_model"})),
    Mutation("another seed of the training", setting("lora_adapter.seed", 1), LORA_ADAPTER),
    Mutation("checkpoints at other steps", setting("lora_adapter.checkpoint_steps", 5), NOTHING),
    Mutation("another head of the graph", setting("onnx_model.head", "float"), ONNX_MODEL),
    Mutation("more tokens generated in the evaluation", setting("eval_report.max_new_tokens", 9), EVAL_REPORT),
    Mutation("another gate", setting("registered_model.gates.min_agreement", 0.001), REGISTERED_MODEL, quick=True),
    Mutation(
        "a gate changed and put back",
        setting("registered_model.gates.min_agreement", 0.0),
        NOTHING,
        before=setting("registered_model.gates.min_agreement", 0.001),
        quick=True,
    ),
    Mutation("another device allowed", setting("compute.device", "auto"), NOTHING),
    Mutation("experiment file reordered, with a comment", _reordered_experiment, NOTHING, quick=True),
    Mutation("another experiment edited", _other_experiment, NOTHING, quick=True),
)

FILES = (
    Mutation("a row of the train side changed", rewritten(_rows, _response_of("train", "dusk", "dawn")), TRAIN_ROWS),
    Mutation(
        "the same, with size and time as before",
        unnoticeably(_rows, _response_of("train", "dusk", "dawn")),
        TRAIN_ROWS,
        living=True,
        quick=True,
    ),
    Mutation("a row of the eval side changed", rewritten(_rows, _response_of("eval", "dusk", "dawn")), EVAL_ROWS),
    Mutation("a row repeated", rewritten(_rows, lambda lines: lines + lines.splitlines(True)[0]), DATASET, quick=True),
    Mutation("rows with CRLF", rewritten(_rows, lambda lines: lines.replace(b"\n", b"\r\n")), DATASET),
    Mutation("rows reformatted, keys in another order", rewritten(_rows, _reformatted), DATASET),
    Mutation("the data file renamed", _renamed_rows, NOTHING, quick=True),
    Mutation("every input touched", _touched, NOTHING),
    Mutation(
        "a byte of the base model changed, size and time as before",
        unnoticeably(_weights, lambda weights: weights[:-1] + bytes([weights[-1] ^ 0x40])),
        AWQ_MODEL,
        living=True,
    ),
    Mutation("a README beside the base model", _with_readme, NOTHING),
    Mutation("another calibration text", rewritten(_text, lambda text: text.replace(b"the ", b"this ")), AWQ_MODEL),
    Mutation("the project's folder moved", _moved, NOTHING),
    Mutation("the tool's own folder moved", _moved_home, NOTHING, quick=True),
)

CODE = (
    Mutation(
        "a comment in a stage's code",
        rewritten(_module("assets/awq_model.py"), lambda text: text + b"# A comment\n"),
        NOTHING,
        quick=True,
    ),
    Mutation(
        "another docstring in a stage's code",
        replaced("assets/lora_adapter.py", '"""The LoRA adapter, trained', '"""A LoRA adapter, trained'),
        NOTHING,
    ),
    Mutation("a line in a stage's code", another_line("assets/dataset.py"), DATASET, quick=True),
    Mutation(
        "a line in a module that one stage imports", another_line("assets/gates.py"), REGISTERED_MODEL, quick=True
    ),
    Mutation(
        "what a module that one stage imports computes",
        replaced("resources/answers.py", "CHRF()", "CHRF(word_order=2)"),
        EVAL_REPORT,
    ),
    Mutation(
        "a line in an Olive pass",
        another_line("resources/olive/passes/response_rows.py"),
        frozenset({"lora_adapter"}) | EVAL_REPORT,
    ),
    Mutation("another version of pandas", another_version("pandas", "999.1"), DATASET, quick=True),
    Mutation("another version of peft", another_version("peft", "999.1"), frozenset({"lora_adapter"}) | EVAL_REPORT),
    Mutation("another version of sacrebleu", another_version("sacrebleu", "999.1"), EVAL_REPORT),
)

MUTATIONS = (*SETTINGS, *FILES, *CODE)
