"""The rows of the benchmark, measured: the tools take turns, and a median is taken of each."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.staleness.judge import Verdict, applies, judge
from benchmarks.staleness.many import create_many, find_all_command
from benchmarks.staleness.mutations import NOTHING, TRAIN_ROWS, Mutation
from benchmarks.staleness.table import Timing
from benchmarks.staleness.tool import Tool
from benchmarks.staleness.workspace import Workspace, create_workspace, line, of_side, row
from resources.store.digests import RACY_SECONDS, FileDigests

NEW_CITIES = ["Ghent", "Basel", "Split", "Malmo", "Aarhus", "Trieste", "Zadar", "Leipzig"]


class Unexpected(Exception):
    """A tool did something that makes the comparison void."""


@dataclass(frozen=True)
class Stand:
    """A tool and its finished workspace, which is copied for everything that changes it."""

    tool: Tool
    finished: Path
    root: Path

    def restore(self) -> Workspace:
        """A copy of the finished workspace where it was made; hard links and times as they were."""
        for left in self.root.parent.glob(f"{self.root.name}*"):
            shutil.rmtree(left)
        subprocess.run(["cp", "-a", str(self.finished), str(self.root)], check=True)
        return Workspace(self.root)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def create_stands(tools: Iterable[Tool], folder: Path, base_model: Path, text: str) -> list[Stand]:
    """A finished workspace for each tool; those that keep artifacts must hold the same bytes."""
    stands: list[Stand] = []
    digests: dict[str, dict[str, str]] = {}
    for tool in tools:
        name = tool.name.replace(" ", "-").replace("'", "")
        stand = Stand(tool, folder / "finished" / name, folder / "work" / name)
        stand.root.parent.mkdir(parents=True, exist_ok=True)
        stand.finished.parent.mkdir(parents=True, exist_ok=True)
        workspace = create_workspace(stand.root, base_model, text)
        tool.prepare(workspace)
        update = tool.update(workspace)
        _expect(tool, "everything", update.executed, frozenset(tool.stages))
        digests[tool.name] = artifact_digests(tool, workspace)
        shutil.move(stand.root, stand.finished)
        say(f"{tool.name}: all {len(tool.stages)} stages in {update.seconds:.1f} s")
        stands.append(stand)
    check_same_bytes(digests)
    return stands


def artifact_digests(tool: Tool, workspace: Workspace) -> dict[str, str]:
    """Stage → digest of its artifact, for those that come out alike whenever they are computed."""
    digests = FileDigests(workspace.root / "digests-of-the-benchmark.sqlite")
    found = {name: digests.folder(path) for name, path in tool.artifacts(workspace).items() if name in tool.reproduces}
    (workspace.root / "digests-of-the-benchmark.sqlite").unlink(missing_ok=True)
    return found


def check_same_bytes(digests: dict[str, dict[str, str]]) -> None:
    """The tools run the same code on the same files, so their artifacts must be the same."""
    for name in {name for one in digests.values() for name in one}:
        found = {tool: one[name] for tool, one in digests.items() if name in one}
        if len(set(found.values())) > 1:
            raise Unexpected(f"{name} differs between the tools: {found}")


def no_op(stands: Sequence[Stand], repetitions: int) -> dict[str, Timing]:
    """Bringing up to date what is up to date."""
    workspaces = {stand.tool.name: _settled(stand) for stand in stands}

    def once(stand: Stand) -> float:
        update = stand.tool.update(workspaces[stand.tool.name])
        _expect(stand.tool, "no-op", update.executed, NOTHING)
        return update.seconds

    return _medians(stands, once, repetitions)


def find(stands: Sequence[Stand], repetitions: int) -> dict[str, Timing]:
    """Saying what is stale of six stages, when nothing is."""
    workspaces = {stand.tool.name: _settled(stand) for stand in stands}

    def once(stand: Stand) -> float | None:
        found = stand.tool.find(workspaces[stand.tool.name])
        if found is None:
            return None
        _expect_fresh(stand.tool, found[1])
        return found[0]

    return _medians(stands, once, repetitions)


def find_many(stands: Sequence[Stand], repetitions: int) -> dict[str, Timing]:
    """Saying what is stale of 600 stages, when nothing is."""
    able = [stand for stand in stands if stand.tool.find_command(Workspace(stand.finished))]
    workspaces: dict[str, Workspace] = {}
    for stand in able:
        began = time.perf_counter()
        workspaces[stand.tool.name] = stand.restore()
        create_many(stand.tool, workspaces[stand.tool.name])
        say(f"{stand.tool.name}: a hundred experiments made in {time.perf_counter() - began:.0f} s")

    def once(stand: Stand) -> float | None:
        workspace = workspaces[stand.tool.name]
        command = find_all_command(stand.tool, workspace)
        if command is None:
            return None
        seconds, answer = stand.tool.run(workspace, command)
        _expect_fresh(stand.tool, answer)
        return seconds

    for stand in able:
        once(stand)  # what a tool remembers of files it has seen, it remembers
    return _medians(able, once, repetitions)


def data_change(stands: Sequence[Stand], repetitions: int) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """A row appended, and the row taken back: seconds to bring everything up to date each time."""
    workspaces = {stand.tool.name: _settled(stand) for stand in stands}
    forth: dict[str, list[float]] = {stand.tool.name: [] for stand in stands}
    back: dict[str, list[float]] = {stand.tool.name: [] for stand in stands}
    notes: dict[str, str] = {}
    for city in of_side("train", NEW_CITIES)[:repetitions]:
        digests: dict[str, dict[str, str]] = {}
        before = next(iter(workspaces.values())).rows.read_bytes()
        for stand in stands:
            workspace, tool = workspaces[stand.tool.name], stand.tool
            workspace.rows.write_bytes(before + line(row(city)).encode())
            update = tool.update(workspace)
            forth[tool.name].append(update.seconds)
            wanted = TRAIN_ROWS & set(tool.stages)
            if update.executed < wanted:
                notes[tool.name] = "stale"
            say(f"{tool.name}: a row appended: {update.seconds:.1f} s, {_names(update.executed)}")
            digests[tool.name] = artifact_digests(tool, workspace)
        check_same_bytes(digests)
        for stand in stands:
            workspace, tool = workspaces[stand.tool.name], stand.tool
            workspace.rows.write_bytes(before)
            update = tool.update(workspace)
            back[tool.name].append(update.seconds)
            say(f"{tool.name}: taken back: {update.seconds:.1f} s, {_names(update.executed)}")
    return (
        {name: Timing(statistics.median(seconds), notes.get(name, "")) for name, seconds in forth.items()},
        {name: Timing(statistics.median(seconds)) for name, seconds in back.items()},
    )


def wrong_answers(stands: Sequence[Stand], mutations: Iterable[Mutation]) -> dict[str, list[Verdict]]:
    """Tool → its verdict on each mutation that concerns it."""
    verdicts: dict[str, list[Verdict]] = {stand.tool.name: [] for stand in stands}
    for mutation in mutations:
        for stand in stands:
            if not applies(mutation, stand.tool.stages):
                continue
            began = time.perf_counter()
            verdict = judge(mutation, executed_after(stand, mutation), stand.tool.stages)
            verdicts[stand.tool.name].append(verdict)
            say(f"{mutation.name}: {stand.tool.name}: {verdict} ({time.perf_counter() - began:.0f} s)")
    return verdicts


def executed_after(stand: Stand, mutation: Mutation) -> frozenset[str]:
    """The stages that the tool executes when it is asked to bring a mutated workspace up to date."""
    workspace = stand.restore()
    if mutation.living:
        time.sleep(RACY_SECONDS + 0.1)  # a file that was just written proves nothing to anybody
        stand.tool.update(workspace)
    if mutation.before:
        mutation.before(workspace, stand.tool)
        stand.tool.update(workspace)
    mutation.change(workspace, stand.tool)
    return stand.tool.update(workspace).executed


def _settled(stand: Stand) -> Workspace:
    """A copy of the finished workspace that the tool has looked at, so that no file is new to it."""
    workspace = stand.restore()
    time.sleep(RACY_SECONDS + 0.1)
    stand.tool.update(workspace)
    return workspace


def _medians(stands: Sequence[Stand], once: Callable[[Stand], float | None], repetitions: int) -> dict[str, Timing]:
    seconds: dict[str, list[float]] = {}
    for _ in range(repetitions):
        for stand in stands:
            took = once(stand)
            if took is not None:
                seconds.setdefault(stand.tool.name, []).append(took)
    return {name: Timing(statistics.median(taken)) for name, taken in seconds.items()}


def _expect(tool: Tool, what: str, executed: frozenset[str], wanted: frozenset[str]) -> None:
    if executed != wanted:
        raise Unexpected(f"{tool.name}: {what}: executed {_names(executed)}, not {_names(wanted)}")


def _expect_fresh(tool: Tool, answer: str) -> None:
    """`answer` must say that nothing is stale: no status but fresh (press), or an empty document (the others)."""
    document = json.loads(answer)
    if isinstance(document, dict) and (experiments := document.get("experiments", [document] if document else [])):
        document = [one for experiment in experiments for one in experiment["stages"] if one["status"] != "fresh"]
    if document:
        raise Unexpected(f"{tool.name}: something is stale: {answer[:1000]}")


def _names(stages: Iterable[str]) -> str:
    return ", ".join(sorted(stages)) or "nothing"
