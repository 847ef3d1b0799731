"""What a load balancer or an orchestrator asks: /livez (the process answers) and /readyz (it serves).

The standard library's server in a thread of its own; it reads two plain values of the broker and touches
nothing else. Bounded: one thread, one request at a time, a short time for each.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Final

from zmqmq.broker.config import http_address
from zmqmq.errors import AddressInUse, InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_TIMEOUT_S: Final = 2.0
_TEXT: Final = "text/plain; charset=utf-8"


class HttpServer:
    """``unready`` says why the broker does not serve, empty when it does. Called from the server's thread."""

    def __init__(self, address: str, unready: Callable[[], str]) -> None:
        host, port = http_address(address)
        try:
            self._server = _Server((host, port), unready)
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno is None or error.strerror is None:
                raise InvalidConfig(f"http = {address!r}: {error}") from error
            raise AddressInUse(
                f"http address {address} cannot be taken: {error.strerror}", hint="use another port, or 0 for any free one"
            ) from error
        bound = self._server.server_address
        self.url = f"http://{host}:{bound[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="zmqmq-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT_S)

    def abandon(self) -> None:
        """After ``fork``, in the child: the port stays the parent's."""
        self._server.socket.close()


class _Server(HTTPServer):
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], unready: Callable[[], str]) -> None:
        self.unready = unready
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that breaks off is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._answer(200, "ok")
        elif path == "/readyz":
            reason = self.server.unready()
            self._answer(503 if reason else 200, reason or "ok")
        elif path == "/":
            self._answer(200, "zmqmq broker: /livez /readyz")
        else:
            self._answer(404, "not found")

    def version_string(self) -> str:
        return "zmqmq"

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002 - no access log
        return

    def _answer(self, status: int, text: str) -> None:
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", _TEXT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
