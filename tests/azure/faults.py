"""Faults by rule, and the record of every request that came in."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD url" matches `pattern`, after `after` that go through.

    drop: the connection is reset once `bytes` of the request's body came in.
    cut: the connection is reset once `bytes` of the answer's body went out.
    answer: `status` with `headers` and an error of `code` and `message`, instead of what would have been done.
    lose: the request is carried out, then the connection is reset instead of answering.
    delay: the request waits `seconds`.
    """

    pattern: str
    do: Literal["drop", "cut", "answer", "lose", "delay"] = "answer"
    times: int = 1
    after: int = 0
    status: int = 500
    code: str = "InternalError"
    message: str = "a fault that a test asked for"
    headers: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """One request that came in, and the status it was answered with (0: not answered).

    sent: bytes of its body.
    """

    line: str
    status: int
    sent: int


class Traffic:
    """Faults still to come and requests so far; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._requests: list[Request] = []

    def add_faults(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def take_fault(self, line: str) -> Fault | None:
        """The fault that hits this request, if any."""
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
            return None

    def record(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def requests(self, pattern: str = "") -> list[Request]:
        """The requests so far whose "METHOD url" matches, oldest first."""
        with self._lock:
            return [request for request in self._requests if re.search(pattern, request.line)]

    def forget(self) -> None:
        """Start anew: no fault, no request."""
        with self._lock:
            self._faults.clear()
            self._requests.clear()
