"""What a load balancer or an orchestrator asks: /livez (the process answers) and /readyz (it serves).

The standard library's server; it reads two plain values of the broker and touches nothing else. Bounded: so many
requests at a time, a short time for each, and the oldest makes room, so that nobody can keep the others out.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final

from zmqmq.broker.config import http_address
from zmqmq.errors import AddressInUse, InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST_TIMEOUT_S: Final = 2.0
"""For a whole request, from its connection to its answer."""
REQUESTS_MAX: Final = 64
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


class _Server(ThreadingMixIn, HTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], unready: Callable[[], str]) -> None:
        self.unready = unready
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        """Requests under way, the oldest first, and their deadlines."""
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= REQUESTS_MAX:
                self._end_oldest()
            self._open[request] = time.monotonic() + REQUEST_TIMEOUT_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by the server's loop between requests, at least every 0.1 s."""
        with self._lock:
            while self._open and next(iter(self._open.values())) < time.monotonic():
                self._end_oldest()

    def _end_oldest(self) -> None:
        """Its thread finds the connection ended, and ends too."""
        request = next(iter(self._open))
        del self._open[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

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
