"""How fast a model of 500 MB is registered, registered again and fetched, beside azure-ai-ml's own upload and download.

Both talk to the same stand-in on this machine (tests/azure: Azurite behind a proxy), so the figures compare the two and
say nothing of a real line. Each operation is a process of its own; its clock starts after its imports. Every fetched
file is compared with what was sent.

    python -m benchmarks.azure [--megabytes 500] [--repeats 2]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from resources.azure.workspace import AzureWorkspace, WorkspaceName
from resources.peak_memory import peak_memory_bytes
from resources.registry.azureml import AzureMLRegistry
from resources.store.keys import Key
from resources.store.store import Store

NAME = "benchmark"
OPERATIONS = ("publish", "publish again", "fetch")
STEERED = ("AZURE_", "AZUREML_", "MSI_", "IDENTITY_", "SSL_CERT_DIR")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--work", nargs=3, metavar=("TOOL", "OPERATION", "FOLDER"), help="what a process is started with"
    )
    options = parser.parse_args()
    if options.work:
        _work(*options.work)
        return
    from tests.azure.stand_in import StandIn

    with tempfile.TemporaryDirectory() as folder:
        stand_in = StandIn(Path(folder))
        try:
            _compare(stand_in, Path(folder), options.megabytes, options.repeats)
        finally:
            stand_in.stop()


def _compare(stand_in, folder: Path, megabytes: int, repeats: int) -> None:
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for repeat in range(repeats):
        for tool in ("olive-press", "azure-ai-ml") if repeat % 2 == 0 else ("azure-ai-ml", "olive-press"):
            workspace = stand_in.workspace()
            work = folder / f"{tool}-{repeat}"
            digest = _build(work / "home", megabytes, repeat)
            kept = {name: value for name, value in os.environ.items() if not name.startswith(STEERED)}
            environment = {**kept, **stand_in.environment, "AZURE_ML_WORKSPACE": workspace.name, "DIGEST": digest}
            for operation in OPERATIONS:
                measured.setdefault((tool, operation), []).append(_measure(tool, operation, work, environment))
            assert _digests(work / "fetched") == _digests(work / "home" / "store" / "trees" / digest)
    print("| | tool | seconds | MB/s | peak memory, MB |\n|---|---|---|---|---|")
    for operation in OPERATIONS:
        for tool in ("olive-press", "azure-ai-ml"):
            seconds = statistics.median(one[0] for one in measured[tool, operation])
            peak = max(one[1] for one in measured[tool, operation])
            print(f"| {operation} | {tool} | {seconds:.2f} | {megabytes / seconds:.0f} | {peak:.0f} |")


def _build(home: Path, megabytes: int, seed: int) -> str:
    """An artifact of one large file, a middling one and some small ones, in the store; returns its digest."""

    def produce(folder: Path, scratch: Path) -> None:
        source = random.Random(seed)
        sizes = {"model.onnx.data": megabytes * 85 // 100, "adapters/travel.onnx_adapter": megabytes * 13 // 100}
        sizes["tokenizer.json"] = megabytes - sum(sizes.values())
        for name, size in sizes.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as file:
                for _ in range(size):
                    file.write(source.randbytes(1_000_000))
        for number in range(10):
            (folder / f"config{number}.json").write_text(str(seed + number))

    digest = Store(home).build(Key({"recipe": "onnx_model", "seed": seed}), produce).entry.digest
    Store(home).open(digest)
    return digest


def _measure(tool: str, operation: str, work: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and the largest resident size in MB."""
    command = [sys.executable, "-m", "benchmarks.azure", "--work", tool, operation, str(work)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], answer["peak"]


def _work(tool: str, operation: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    act = {"olive-press": _press, "azure-ai-ml": _sdk}[tool](operation, Path(folder))
    began = time.monotonic()
    act()
    seconds = time.monotonic() - began
    print(json.dumps({"seconds": seconds, "peak": peak_memory_bytes() / 1e6}))


def _press(operation: str, folder: Path):
    workspace = AzureWorkspace(_workspace_name())
    workspace.client.datastores.get_default()  # imports and signs in, as the other one does
    # Again means: from a machine that has the content and knows of no version.
    home = folder / ("home" if operation != "publish again" else "other-home")
    registry = AzureMLRegistry(workspace, home, Store(folder / "home"))
    if operation == "fetch":
        return lambda: registry.fetch(NAME, 1, folder / "fetched")
    return lambda: registry.register(NAME, os.environ["DIGEST"], {}, "# card")


def _sdk(operation: str, folder: Path):
    from azure.ai.ml.entities import Model

    client = AzureWorkspace(_workspace_name()).client
    client.datastores.get_default()
    tree = folder / "home" / "store" / "trees" / os.environ["DIGEST"]

    def fetch() -> None:
        client.models.download(NAME, "1", download_path=folder / "down")
        (folder / "down" / NAME / tree.name).rename(folder / "fetched")

    model = Model(name=NAME, version="1", path=tree, type="custom_model")
    return fetch if operation == "fetch" else lambda: client.models.create_or_update(model)


def _workspace_name() -> WorkspaceName:
    names = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_ML_WORKSPACE")
    return WorkspaceName(*(os.environ[name] for name in names))


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
