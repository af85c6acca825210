"""The HTTP server that is scraped."""

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from greend.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

PATHS = ("/", "/metrics")
# Whoever is slower than this, or more than so many at once, is hung up on.
SLOWEST_S = 10.0
MOST_AT_ONCE = 8


class Endpoint:
    """Serves a registry at HOST:PORT or [IPv6]:PORT, from a thread of its own.

    The address is taken when the endpoint is made. Raises InvalidArgument, saying what
    to do, if that cannot be.
    """

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        self._server = _bind(address)
        self._server.set_app(_telling(make_wsgi_app(registry)))
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens; says the port that was chosen if 0 was asked for."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Stops listening and joins the thread; what is being answered is left to itself."""
        self._stopping = True
        # Wakes the thread; serve_forever() would poll instead, and wake an idle host.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._server.server_close()

    def _run(self) -> None:
        while not self._stopping:
            self._server.handle_request()


class _Server(ThreadingWSGIServer):
    """A thread a request, a bounded number of them."""

    request_queue_size = 2 * MOST_AT_ONCE

    def __init__(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(address[:2], _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look its name up in the DNS, which can take seconds.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            log.warning("%d scrapes at once: one more refused", MOST_AT_ONCE)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Who scrapes may leave at any time.
        log.debug("scrape by %s failed", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = SLOWEST_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


def _telling(
    app: Callable[..., Iterable[bytes]],
) -> "Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]":
    """Elsewhere there is nothing; a scrape that cannot be answered is told why."""

    def telling(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] not in PATHS:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"greend: the metrics are at /metrics\n"]
        try:
            return app(environ, start_response)
        except Unavailable as error:
            log.warning("scrape not answered: %s", error)
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [f"greend: {error}\n".encode()]

    return telling


def _bind(address: str) -> _Server:
    host, port = parse_address(address)
    try:
        family, _, _, _, found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _Server(family, found)
    except OSError as error:
        raise InvalidArgument(f"[metrics] address: {address}: {_remedy(error, port)}") from None


def parse_address(address: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT, taken apart. Raises InvalidArgument."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed:
        raise InvalidArgument(
            f"[metrics] address: {address!r} is not HOST:PORT; for example 127.0.0.1:9477, or"
            " 0.0.0.0:9477 or [::]:9477 for all interfaces; '' switches it off"
        )
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise InvalidArgument(f"[metrics] address: {port!r} is not a port between 0 and 65535")
    return host, int(port)


def _remedy(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"the port is in use (`ss -ltnp 'sport = :{port}'` says by whom): stop that program,"
            " choose another address with --metrics HOST:PORT, or switch it off with --metrics ''"
        )
    if error.errno == errno.EACCES:
        return "ports below 1024 need root: choose a higher one with --metrics HOST:PORT"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: choose one of its own with --metrics HOST:PORT"
    return f"cannot listen there ({error.strerror}): choose another with --metrics HOST:PORT"
