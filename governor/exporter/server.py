"""Answers scrapes over HTTP: few threads, short patience, so that nobody can wear it down."""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from governor.errors import InputError
from governor.exporter import Address, MetricsConfig
from governor.exporter.auth import Passwords
from governor.metrics import Collector, Source

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOST_THREADS = 8
"""Scrapes answered at the same time."""
PATIENCE_S = 5.0
"""A scraper that is silent for so long is hung up on."""
GRACE_S = 0.25
"""So long a scrape may take while others wait for its thread; one takes some milliseconds."""
TURN_S = 1.0
"""The longest that a thread whose scraper was hung up on may take to end."""
PAUSE_S = 0.1
"""Until the next try where no connection can be taken."""
PORTS = 100
"""So many ports are tried for a free one."""
PATH = "/metrics"
logger = logging.getLogger("governor")


class MetricsServer:
    """One address, shared by the governors of this process that ask for the same one.

    Attributes:
        url: where to scrape.
        collector: of the governors that take part.
    """

    def __init__(self, config: MetricsConfig) -> None:
        """Listen at once.

        Raises:
            InputError: the address cannot be had, or a file is unusable.
        """
        from prometheus_client import (
            CollectorRegistry,
            make_wsgi_app,  # pyright: ignore[reportUnknownVariableType]
        )

        self.config = config
        self.collector = Collector()
        self.members = 0
        registry = CollectorRegistry()
        registry.register(self.collector)
        app = _only_metrics(cast("WSGIApplication", make_wsgi_app(registry)))
        if config.passwords is not None:
            app = Passwords.load(config.passwords).guard(app)
        tls = _tls(config)
        address = Address.parse(config.listen)
        self._server = _listen(address, app, tls)
        host = f"[{address.host}]" if ":" in address.host else address.host
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{host}:{self._server.server_port}{PATH}"
        self._thread = threading.Thread(target=self._server.serve, name="metrics", daemon=True)
        self._thread.start()

    def leave(self, source: Source) -> None:
        """This governor takes part no more; after the last one, nothing listens."""
        self.collector.remove(source)
        with _lock:
            self.members -= 1
            if self.members:
                return
            _servers.pop(self.config.listen, None)
        self._server.end()
        self._thread.join(TURN_S)

    def forget(self) -> None:
        """In a forked child: the address is the parent's, and must not be kept open."""
        self._server.server_close()


def share(config: MetricsConfig) -> MetricsServer:
    """The server of this process at an address, a new one where there is none yet.

    Raises:
        InputError: the address cannot be had, or is shared with other files.
    """
    with _lock:
        server = _servers.get(config.listen)
        if server is None:
            server = _servers[config.listen] = MetricsServer(config)
            logger.info("metrics at %s", server.url)
        elif _files(server.config) != _files(config):
            raise InputError(
                f"another governor of this process listens at {config.listen} with another "
                "certificate or other passwords; use the same, or another port"
            )
        server.members += 1
        return server


def _files(config: MetricsConfig) -> tuple[object, ...]:
    return config.certificate, config.key, config.passwords


_lock = threading.RLock()  # a signal may end a governor while another one begins
_servers: dict[str, MetricsServer] = {}


def _forget_all() -> None:
    global _lock
    _lock = threading.RLock()
    for server in _servers.values():
        server.forget()
    _servers.clear()


os.register_at_fork(after_in_child=_forget_all)


def _only_metrics(metrics: WSGIApplication) -> WSGIApplication:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == PATH:
            return metrics(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [f"The metrics are at {PATH}\n".encode()]

    return app


def _tls(config: MetricsConfig) -> ssl.SSLContext | None:
    if config.certificate is None or config.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{config.certificate} and {config.key} are no certificate and its key in PEM: {error}"
        ) from error
    return context


def _listen(address: Address, app: WSGIApplication, tls: ssl.SSLContext | None) -> _Server:
    try:
        family, _, _, _, found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InputError(f"cannot listen at {address.host}: {error.strerror}") from error
    last = min(address.port + PORTS, 65536) if address.next_free else address.port + 1
    for port in range(address.port, last):
        with suppress(_Taken):
            return _Server(family, (str(found[0]), port), app, tls)
    where = f"{address.host}:{address.port}"
    if address.next_free:
        raise InputError(f"{where} and the {PORTS - 1} ports after it are all taken")
    raise InputError(
        f"{where} is taken by another program; choose another port, or write {where}+ "
        "for the next free one"
    )


class _Taken(Exception):  # noqa: N818 - no error yet: another port may be free
    pass


class _Server(WSGIServer):
    """At most ``MOST_THREADS`` connections; one more waits, or the oldest is hung up on."""

    request_queue_size = 32

    def __init__(
        self,
        family: int,
        address: tuple[str, int],
        app: WSGIApplication,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.address_family = family
        self._tls = tls
        self._open: dict[socket.socket, float] = {}
        self._guard = threading.Lock()
        self._free = threading.BoundedSemaphore(MOST_THREADS)
        self._ended = False
        super().__init__(address, _Handler)
        self.set_app(app)

    def server_bind(self) -> None:
        """As the base class, without asking a name server who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind(self.server_address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _Taken from error
            host, port = self.server_address[:2]
            raise InputError(f"cannot listen at {host!s}:{port}: {error.strerror}") from error
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def serve(self) -> None:
        """Answer until :meth:`end`, without ever waking up for nothing."""
        while not self._ended:
            with suppress(OSError):  # it has ended, or there are no more file descriptors
                self.process_request(*self.get_request())
                continue
            time.sleep(0.0 if self._ended else PAUSE_S)

    def end(self) -> None:
        """Listen no more."""
        self._ended = True
        with suppress(OSError):  # wakes up the thread that waits for a scraper
            self.socket.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, when one is free."""
        if not self._free.acquire(timeout=self._grace_s()):
            self._hang_up_on_the_oldest()
            if not self._free.acquire(timeout=TURN_S):
                self.shutdown_request(request)
                return
        with self._guard:
            self._open[request] = time.monotonic()
        threading.Thread(
            target=self._answer, args=(request, client_address), name="scrape", daemon=True
        ).start()

    def _grace_s(self) -> float:
        """Until the oldest connection has had its time."""
        now_s = time.monotonic()
        with self._guard:
            return max(next(iter(self._open.values()), now_s) + GRACE_S - now_s, 0.0)

    def _hang_up_on_the_oldest(self) -> None:
        with self._guard:
            oldest = next(iter(self._open), None)
            if oldest is not None:
                del self._open[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        connection = request
        try:
            request.settimeout(PATIENCE_S)
            if self._tls is not None:
                # a copy: the one that may have to be hung up on must stay as it is
                connection = self._tls.wrap_socket(request.dup(), server_side=True)
            self.finish_request(connection, client_address)
        except Exception as error:  # garbage, silence or a closed line: theirs, not ours
            logger.debug("a scrape came to nothing: %s", error)
        finally:
            with self._guard:
                self._open.pop(request, None)
            if connection is not request:
                connection.close()
            self.shutdown_request(request)
            self._free.release()


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""

    def get_stderr(self) -> Any:
        """What a scraper does is not the application's trouble."""
        return io.StringIO()
