"""The environment in which no tool sends telemetry."""

from __future__ import annotations

# Olive 0.13.0 logs a heartbeat before it reads its own switch. OpenTelemetry, which would send that, has one, too;
# without it each process of ours tried for 11 s to reach the collector from a machine without a network.
TELEMETRY_OFF = {
    "OLIVE_DISABLE_TELEMETRY": "1",
    "OTEL_SDK_DISABLED": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
