"""How long press plan takes where much is known: many experiments of six stages, each with a long history.

The artifacts are small files under the real keys of the real stages, the materializations are what Dagster records of
a restore, with figures, tables and plots. The latest materialization of each asset goes through Dagster's API, the
older ones are copies of its rows in Dagster's file, filed before it. What is measured are whole processes of the press
command, after their answers were checked: everything fresh, and after an edit of one data file exactly its stages not.

    python -m benchmarks.planning [--experiments 500] [--history 20] [--repeats 5] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from assets.experiment import open_experiment
from assets.stage import Facts, Stage
from orchestration.history import InstanceEvents, open_instance
from orchestration.kept_facts import KeptFacts
from orchestration.metadata import metadata
from orchestration.planner import Planner
from orchestration.recorded import SqliteRecords
from orchestration.registries import Registries
from orchestration.reports import report_observations, report_restored
from orchestration.savings import saving
from resources.plots import line_plot
from resources.registry.local import LocalRegistry
from resources.store.store import Entry, Store

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "dataset": ("train.jsonl", "eval.jsonl", "counts.json"),
    "awq_model": (
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "awq_metrics.json",
    ),
    "lora_adapter": ("adapter_model.safetensors", "adapter_config.json", "training_curve.json"),
    "onnx_model": (
        "model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "graph.json", "adapters/adapter.onnx_adapter",
    ),
    "eval_report": ("report.json", "report.md"),
    "registered_model": ("registration.json", "model_card.md"),
}  # fmt: skip
HEAVY = ("torch", "olive", "transformers", "onnxruntime", "pandas", "dagster")
LATEST = 100_000_000  # the id from which on the latest materializations lie


def main() -> None:
    options = _options()
    with _folder(options.folder) as folder:
        started = time.perf_counter()
        names = create_project(folder, options.experiments)
        record_history(folder, names, options.history)
        print(f"{len(names)} experiments, {6 * len(names)} stages, {options.history} materializations of each")
        print(f"made in {time.perf_counter() - started:.0f} s\n")
        check_answers(folder, names)
        print(f"{'whole process':<32}{'median s':>10}{'least s':>10}{'most s':>10}")
        for arguments in (["plan", "--all", "--json"], ["plan", names[0], "--json"], ["--help"]):
            seconds = [_timed(folder, arguments) for _ in range(options.repeats)]
            told = f"{statistics.median(seconds):>10.2f}{min(seconds):>10.2f}{max(seconds):>10.2f}"
            print(f"{'press ' + ' '.join(arguments):<32}{told}")


def create_project(folder: Path, count: int) -> list[str]:
    """Experiments with data, parameters and artifacts of their own, all published under one name; their names."""
    _write_base_model(folder / "base_model")
    (folder / "experiments").mkdir()
    (folder / "data").mkdir()
    names = [f"e{number:03d}" for number in range(count)]
    for number, name in enumerate(names):
        rows = "".join(json.dumps({"prompt": f"{name} {row}?", "response": f"{row}."}) + "\n" for row in range(200))
        (folder / "data" / f"{name}.jsonl").write_text(rows)
        document = {
            "base_model": {"folder": "base_model"},
            "dataset": {"path": f"data/{name}.jsonl"},
            "awq_model": {"group_size": 16, "seed": number},
            "lora_adapter": {"steps": 100 + number, "r": 8},
            "eval_report": {"rows": 64},
            "registered_model": {"name": "travel", "gates": {"min_agreement": 0.9}},
        }
        (folder / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return names


def record_history(folder: Path, names: list[str], length: int) -> None:
    """Artifacts for every stage, and `length` materializations of each in Dagster's records."""
    home = folder / "home"
    store, registry, kept = Store(home), LocalRegistry(home), _DrawnFacts(home, Store(home))
    planner = Planner(store, Registries(home), SqliteRecords(home))
    experiments = [open_experiment(name, folder / "experiments") for name in names]
    with open_instance(home) as instance:
        events = InstanceEvents(instance)
        for experiment in experiments:
            report_observations(events, experiment.name, {}, planner.plan(experiment).sources)
        _move_events(home, LATEST)
        for experiment in experiments:
            plan = planner.plan(experiment)
            versions: dict[str, str] = dict(plan.sources)
            for one in plan.stages:
                entry = _commit(store, one.stage, versions)
                inputs = {name: versions[name] for name in one.stage.made_from}
                versions[one.stage.name] = entry.digest
                if one.stage.name == "registered_model":
                    registry.register("travel", versions["onnx_model"], {"experiment": experiment.name}, "A card.")
                saved = saving(store, experiment.name, one.stage.name, "restored", 0.0, entry)
                shown = metadata(one.stage, kept, entry, inputs, saved)
                report_restored(events, one.stage, entry, inputs, shown)
    _copy_events(home, length - 1)


def check_answers(folder: Path, names: list[str]) -> None:
    """The planner sees everything fresh, and after an edit of one data file exactly the stages behind it not."""
    fresh = dict.fromkeys(names, ["fresh"] * 6)
    assert _statuses(folder) == fresh
    edited = folder / "data" / f"{names[-1]}.jsonl"
    rows = edited.read_text()
    edited.write_text(rows.replace("0.", "1."))
    assert _statuses(folder) == fresh | {names[-1]: ["run", "fresh", "maybe", "maybe", "maybe", "maybe"]}
    edited.write_text(rows)
    assert _statuses(folder) == fresh
    time.sleep(2)  # a file that was written just now is read again each time
    assert _statuses(folder) == fresh
    assert not _imported(folder), f"press plan imported {_imported(folder)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiments", type=int, default=500)
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="an empty folder to work in and to leave; a temporary one if absent"
    )
    return parser.parse_args()


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _commit(store: Store, stage: Stage, versions: dict[str, str]) -> Entry:
    """An artifact with the file names of a real one."""
    key = stage.key(stage.seen({name: versions[name] for name in stage.made_from}, store))

    def produce(folder: Path, scratch: Path) -> None:
        for name in FILES[stage.name]:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{name} of {key.id}")

    return store.build(key, produce, {"experiment": stage.experiment.name, "modules": stage.modules()}).entry


class _DrawnFacts(KeptFacts):
    """Facts of the size that real ones have, drawn once: the artifacts here have none."""

    def __init__(self, home: Path, store: Store) -> None:
        super().__init__(home, store)
        plot = line_plot("Training", "step", "loss", {"loss": [(step, 1 / (step + 1)) for step in range(100)]})
        rows = [{"step": step, "loss": 1 / (step + 1), "tokens": step} for step in range(25)]
        self._drawn = Facts(
            {f"figure {n}": n / 7 for n in range(12)}, {"table": rows}, {"plot": plot}, {"text": "Text."}
        )

    def facts(self, stage: Stage, digest: str) -> Facts:
        return self._drawn


def _write_base_model(folder: Path) -> None:
    """The least that counts as a base model."""
    folder.mkdir()
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
    }
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4, "num_key_value_heads": 2}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))


def _database(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(home / "dagster" / "history" / "runs" / "index.db")


def _move_events(home: Path, to: int) -> None:
    """Leave room before the events to come."""
    with closing(_database(home)) as connection, connection:
        connection.execute("UPDATE event_logs SET id = id + ?", [to])
        connection.execute("UPDATE asset_event_tags SET event_id = event_id + ?", [to])


def _copy_events(home: Path, times: int) -> None:
    """Older copies of every materialization, with their tags."""
    columns = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
    kind = "dagster_event_type = 'ASSET_MATERIALIZATION'"
    tags = "asset_key, key, value, event_timestamp"
    with closing(_database(home)) as connection, connection:
        (events,) = connection.execute(f"SELECT MAX(id) - {LATEST} FROM event_logs").fetchone()
        for number in range(times):
            older = LATEST - number * (events + 1)
            connection.execute(
                f"INSERT INTO event_logs (id, {columns}) SELECT id - ?, {columns} FROM event_logs "
                f"WHERE id > ? AND {kind}",
                [older, LATEST],
            )
            connection.execute(
                f"INSERT INTO asset_event_tags (event_id, {tags}) SELECT event_id - ?, {tags} FROM asset_event_tags "
                f"WHERE event_id IN (SELECT id FROM event_logs WHERE id > ? AND {kind})",
                [older, LATEST],
            )


def _press(folder: Path, arguments: list[str], command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    places = {"PRESS_HOME": str(folder / "home"), "PRESS_EXPERIMENTS": str(folder / "experiments")}
    press = command or [str(Path(sys.executable).parent / "press")]
    done = subprocess.run([*press, *arguments], env=os.environ | places, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def _statuses(folder: Path) -> dict[str, list[str]]:
    experiments: list[dict[str, Any]] = json.loads(_press(folder, ["plan", "--all", "--json"]).stdout)["experiments"]
    return {one["experiment"]: [stage["status"] for stage in one["stages"]] for one in experiments}


def _imported(folder: Path) -> list[str]:
    """Which of the heavy packages a process that plans everything has imported at its end."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr))\n"
        "from orchestration.cli import main\nmain()\n"
    )
    done = _press(folder, ["plan", "--all", "--json"], [sys.executable, "-c", code])
    return json.loads(done.stderr.splitlines()[-1].replace("'", '"'))


def _timed(folder: Path, arguments: list[str]) -> float:
    started = time.perf_counter()
    _press(folder, arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
