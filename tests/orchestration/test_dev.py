"""press dev: the Dagster UI with the daemon, on 127.0.0.1, ended by one signal."""

from __future__ import annotations

import signal
import time
import urllib.error

from tests.orchestration.test_webserver import Webserver, free_port


def test_dev_serves_the_code_location_and_ends_on_sigint(project):
    port = free_port()
    process = project.start("dev", "--port", str(port))
    try:
        server = Webserver(f"http://127.0.0.1:{port}/graphql")
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            try:
                if set(server.nodes()) == {
                    "dataset", "awq_model", "lora_adapter", "onnx_model", "eval_report", "registered_model",
                }:  # fmt: skip
                    break
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
