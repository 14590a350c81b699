"""press dev: the Dagster UI with the daemon, on 127.0.0.1, ended by one signal; its sensors are off."""

from __future__ import annotations

import signal

from tests.orchestration.dagster_services import STAGES, press_dev


def test_dev_serves_the_code_location_and_ends_on_sigint(project, tmp_path):
    with press_dev(project, tmp_path) as server:
        assert server.marks() == dict.fromkeys(STAGES, "FRESH")
        sensor = server.sensor("keep_tiny_up_to_date")
        assert (sensor["sensorState"]["status"], sensor["minIntervalSeconds"]) == ("STOPPED", 30)
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=60)
