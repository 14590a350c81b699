"""Azurite, the blob service: an npm package that `make test` installs beside the Python packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from tests.azure.certificates import Certificates

MAIN = Path(__file__).parents[2] / ".venv/azurite/node_modules/azurite/dist/src/blob/main.js"


def why_missing() -> str | None:
    """Why Azurite cannot be started here; None when it can."""
    if shutil.which("node") is None:
        return "no Node.js on this machine, which the blob service stand-in (Azurite) needs"
    return None if MAIN.is_file() else f"Azurite is not installed ({MAIN}); make test installs it where npm is"


class Azurite:
    """A running Azurite with one account; everything it keeps is in its memory."""

    def __init__(self, folder: Path, certificates: Certificates, account: str, key: str) -> None:
        self._log = folder / "azurite.log"
        command = ["node", str(MAIN), "--blobHost", "127.0.0.1", "--blobPort", "0"]
        command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"]
        command += ["--extentMemoryLimit", "4096", "--blobKeepAliveTimeout", "600"]
        command += ["--oauth", "basic", "--cert", str(certificates.chain), "--key", str(certificates.key)]
        with self._log.open("wb") as log:
            environment = {**os.environ, "AZURITE_ACCOUNTS": f"{account}:{key}"}
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        self.port = self._await_port()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _await_port(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            told = re.search(r"successfully listen\w* (?:at|on) https://127\.0\.0\.1:(\d+)", self._log.read_text())
            if told:
                return int(told[1])
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"Azurite did not start: {self._log.read_text()}")
