"""What both planes share: a TLS server under the real host names that records requests and lets faults happen."""

from __future__ import annotations

import json
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Any

from tests.azure.certificates import Certificates
from tests.azure.faults import Fault, Request, Traffic

PIECE = 1 << 18


class Plane(socketserver.ThreadingTCPServer):
    """A server on a free port of 127.0.0.1, TLS where certificates are given; a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, handler: type[socketserver.BaseRequestHandler], certificates: Certificates | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._context = None
        if certificates:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.chain, certificates.key)

    @property
    def port(self) -> int:
        return self.server_address[1]

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._context:
            # The handshake happens in the thread of the connection, with its first read.
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer; subclasses say what is done in `serve`."""

    protocol_version = "HTTP/1.1"
    # Small answers leave at once and large ones in large writes.
    disable_nagle_algorithm = True
    wbufsize = -1
    traffic: Traffic

    def serve(self) -> None:
        """Read the body with `pieces`, answer with `answer` or `begin` and the connection's own file."""
        raise NotImplementedError

    def refusal(self, fault: Fault) -> None:
        """Answer with the status and error of `fault` in the words of this plane."""
        raise NotImplementedError

    def handle_method(self) -> None:
        self.sent = 0
        self.status = 0
        self.left = int(self.headers.get("Content-Length") or 0)
        self.line = f"{self.command} https://{self.headers.get('Host', '')}{self.path}"
        self.fault = self.traffic.take_fault(self.line)
        try:
            self._serve_with_fault()
        finally:
            self.traffic.record(Request(self.line, self.status, self.sent))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_method

    def pieces(self) -> Iterator[bytes]:
        """The body of the request."""
        while self.left and (piece := self.rfile.read(min(PIECE, self.left))):
            self.left -= len(piece)
            self.sent += len(piece)
            yield piece

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        if self.fault and self.fault.do == "lose":
            raise ConnectionResetError
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        for _ in self.pieces():
            pass
        given = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
        self.begin(status, given)
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, json.dumps(document).encode(), "application/json; charset=utf-8", headers)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `traffic` has it."""

    def _serve_with_fault(self) -> None:
        fault = self.fault
        try:
            if fault and fault.do == "drop":
                while self.sent < fault.bytes and self.left:
                    piece = self.rfile.read(min(PIECE, self.left, fault.bytes - self.sent))
                    self.sent += len(piece)
                    self.left -= len(piece)
                raise ConnectionResetError
            if fault and fault.do == "delay":
                time.sleep(fault.seconds)
            if fault and fault.do == "answer":
                self.refusal(fault)
            else:
                self.serve()
        except OSError:
            self.close_connection = True
            reset(self.connection)


def reset(connection: socket) -> None:
    """Close the connection so that the other side sees a reset, not an end."""
    with suppress(OSError):
        connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
