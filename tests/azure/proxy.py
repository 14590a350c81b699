"""The way out of every client: a CONNECT proxy that leads known hosts to the stand-in and refuses all others."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_WR, create_connection, socket

from tests.azure.faults import Request, Traffic
from tests.azure.plane import PIECE


class ProxyConnection(socketserver.StreamRequestHandler):
    """One client's connection; `port_of` gives the local port of a host, None for a host that is refused."""

    traffic: Traffic
    port_of: Callable[[str], int | None]

    def handle(self) -> None:
        line = self.rfile.readline().decode("latin-1").split()
        while self.rfile.readline().strip():
            pass
        if len(line) != 3:
            return
        method, target, _ = line
        port = type(self).port_of(target.rpartition(":")[0]) if method == "CONNECT" else None
        if port is None:
            self.traffic.record(Request(f"REFUSED {target}", 403, 0))
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with create_connection(("127.0.0.1", port)) as server:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            there = threading.Thread(target=_copy, args=(self.request, server), daemon=True)
            there.start()
            _copy(server, self.request)
            there.join(5)


def _copy(source: socket, target: socket) -> None:
    """What comes from `source` goes to `target` until one of them ends."""
    with suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(SHUT_WR)
