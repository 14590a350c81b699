"""The front of the blob service: each request goes to Azurite as it came, unless a fault hits it."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from xml.sax.saxutils import escape

from tests.azure.faults import Fault
from tests.azure.plane import PIECE, Exchange

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class BlobExchange(Exchange):
    """One request to the blob service; the connection to Azurite lives as long as the client's."""

    azurite_port: int
    _azurite: http.client.HTTPSConnection | None = None

    def serve(self) -> None:
        response = self._forward()
        length = response.getheader("Content-Length")
        has_body = self.command != "HEAD" and response.status not in (204, 304)
        body = response.read() if length is None and has_body else None
        headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
        if body is not None or length is not None:
            headers["Content-Length"] = str(len(body)) if body is not None else str(length)
        self.begin(response.status, headers)
        if body is not None:
            self.wfile.write(body)
        elif has_body:
            self._stream(response)
        response.read()

    def refusal(self, fault: Fault) -> None:
        error = f"<Error><Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message></Error>"
        headers = {"x-ms-error-code": fault.code, **fault.headers}
        self.answer(fault.status, f'<?xml version="1.0"?>{error}'.encode(), "application/xml", headers)

    def finish(self) -> None:
        if self._azurite:
            self._azurite.close()
        super().finish()

    def _forward(self) -> http.client.HTTPResponse:
        if self._azurite is None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            port = type(self).azurite_port
            self._azurite = http.client.HTTPSConnection("127.0.0.1", port, context=context, blocksize=PIECE)
        connection: Any = self._azurite
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        for piece in self.pieces():
            connection.send(piece)
        return connection.getresponse()

    def _stream(self, response: http.client.HTTPResponse) -> None:
        left = self.fault.bytes if self.fault and self.fault.do == "cut" else None
        while piece := response.read(PIECE if left is None else min(PIECE, left)):
            self.wfile.write(piece)
            left = None if left is None else left - len(piece)
        if left is not None:
            self.wfile.flush()
            raise ConnectionResetError
