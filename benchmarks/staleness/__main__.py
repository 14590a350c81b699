"""Olive Press beside DVC, Olive's own cache and a plain Dagster project, in one run on one machine.

    python -m benchmarks.staleness [--quick] [--rows no-op find ...] [--keep FOLDER]

Prints a markdown table: seconds of whole processes, medians, the tools taking turns, and the ratio to press; then how
many of the mutations (mutations.py) each tool answered wrongly. Every answer is measured: a copy of a finished project
is changed, the tool brings it up to date, and the stages that it really executed are held against those that had to be.
All tools run the same stage code on the same tiny model with the same Python; the artifacts they keep must be the same
bytes. How each tool is set up is said in press.py, dvc.py, dagster_project.py and olive_workflow.py. Olive has two of
the six stages and no command that finds what is stale; it is asked about the mutations that reach these two, or none.

The exit code is 1 when press gives a wrong answer. About 15 minutes on two cores; --quick takes about three.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.staleness import measure
from benchmarks.staleness.dvc import VERSION, Dvc, install_dvc
from benchmarks.staleness.judge import Verdict, score
from benchmarks.staleness.mutations import MUTATIONS
from benchmarks.staleness.olive_cache import OliveCache
from benchmarks.staleness.plain_dagster import PlainDagster
from benchmarks.staleness.press import Press
from benchmarks.staleness.table import Timing, table
from resources.calibration_text import PYTHON_DOCS, read
from tests.tiny_models import save_tiny_model

ROWS = ("no-op", "find", "find-600", "data", "mutations")
TEXT_LENGTH = 200_000


def main() -> int:
    options = _options()
    with _folder(options.keep) as folder:
        every = {
            "press": Press(),
            "dvc": Dvc(install_dvc(options.cache)),
            "dagster": PlainDagster(),
            "olive": OliveCache(),
        }
        tools = [tool for name, tool in every.items() if name in options.tools]
        stands = measure.create_stands(tools, folder, *_inputs(folder))
        timings, verdicts = _measure(stands, options)
    print(table([tool.name for tool in tools], timings, {name: score(one) for name, one in verdicts.items()}))
    print(f"\n{_versions()}; {os.cpu_count()} cores")
    return 0 if all(one.is_right for one in verdicts.get(Press.name, [])) else 1


def _measure(
    stands: list[measure.Stand], options: argparse.Namespace
) -> tuple[dict[str, dict[str, Timing]], dict[str, list[Verdict]]]:
    often, seldom = (3, 1) if options.quick else (5, 3)
    timings: dict[str, dict[str, Timing]] = {}
    verdicts: dict[str, list[Verdict]] = {}
    if "no-op" in options.rows:
        timings["nothing to do"] = measure.no_op(stands, often)
    if "find" in options.rows:
        timings["what is stale, of 6 stages"] = measure.find(stands, often)
    if "find-600" in options.rows:
        timings["what is stale, of 600 stages"] = measure.find_many(stands, seldom)
    if "data" in options.rows:
        forth, back = measure.data_change(stands, seldom)
        timings |= {"a row of data added": forth, "the row taken back": back}
    if "mutations" in options.rows:
        chosen = [one for one in MUTATIONS if one.quick or not options.quick]
        verdicts = measure.wrong_answers(stands, [one for one in chosen if options.only in one.name])
    return timings, verdicts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmarks.staleness"
    )
    parser.add_argument("--quick", action="store_true", help="fewer mutations and repetitions")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--tools", nargs="+", choices=("press", "dvc", "dagster", "olive"), default=None)
    parser.add_argument("--only", default="", help="mutations whose name holds this text")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    parser.add_argument("--cache", type=Path, default=_cache_folder(), help="where DVC's virtual environment is kept")
    options = parser.parse_args()
    options.tools = options.tools or ["press", "dvc", "dagster", "olive"]
    return options


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "olive-press-benchmarks"


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="staleness-") as temporary:
            yield Path(temporary)
        return
    keep.mkdir(parents=True)
    yield keep.resolve()


def _inputs(folder: Path) -> tuple[Path, str]:
    """The tiny base model, and a text to calibrate on."""
    return save_tiny_model("llama", folder / "base_model"), read(PYTHON_DOCS, folder)[:TEXT_LENGTH]


def _versions() -> str:
    return f"DVC {VERSION}, Dagster {version('dagster')}, Olive {version('olive-ai')}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    sys.exit(main())
