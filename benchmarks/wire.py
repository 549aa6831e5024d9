"""Counts what a PostgreSQL answers, between it and whoever is counted.

Django's own count leaves out what other sessions ask, BEGIN and COMMIT, and what one message holds.
So this relays the protocol and reads what the server says: one ReadyForQuery for each round trip,
one CommandComplete for each statement (PostgreSQL manual, "Message Formats"). Only counted calls
pass through it, never timed ones.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit

from django.db import connection

from benchmarks.figures import Counts

__all__ = ["Relay", "count", "counted"]

#: ReadyForQuery, CommandComplete, and BackendKeyData, which begins a session.
_READY, _COMPLETE, _KEY = b"Z", b"C", b"K"


class Relay:
    """A relay on the loopback interface to the server of a URL."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._seen: Counter[bytes] = Counter()
        self._is_silent = False
        self._unheard: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the same database through this relay."""
        user = self._parts.username or ""
        login = f"{user}:{self._parts.password}" if self._parts.password else user
        return urlunsplit(
            self._parts._replace(
                netloc=f"{login}@127.0.0.1:{self.port}", query="sslmode=disable&gssencmode=disable"
            )
        )

    @property
    def counts(self) -> Counts:
        """What the server answered so far."""
        sessions = self._seen[_KEY]
        return Counts(
            trips=self._seen[_READY] - sessions,  # it is ready once before the first
            statements=self._seen[_COMPLETE],
            connections=sessions,
        )

    def stop_heartbeat(self) -> None:
        """Swallow everything from now on, also that an end was closed."""
        self._is_silent = True

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_silent:
                    self._unheard.append(client)
                    continue
                server = self._connect()
                for pair in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass_on, args=[*pair, pair[0] is server], daemon=True
                    ).start()

    def _connect(self) -> socket.socket:
        host = self._parts.hostname or parse_qs(self._parts.query)["host"][0]
        port = self._parts.port or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _pass_on(self, source: socket.socket, target: socket.socket, is_server: bool) -> None:
        unread = b""
        with suppress(OSError):
            while data := source.recv(65536):
                if self._is_silent:
                    continue
                if is_server:
                    unread = self._count(unread + data)
                target.sendall(data)
        if self._is_silent:
            return
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, data: bytes) -> bytes:
        """Count whole messages, each a letter and its length; what is left of the last one."""
        while len(data) >= 5:
            size = 1 + struct.unpack_from("!i", data, 1)[0]
            if len(data) < size:
                break
            self._seen[data[:1]] += 1
            data = data[size:]
        return data


@contextmanager
def counted(url: str) -> Iterator[Relay]:
    """A context in which this process reaches its database through a relay, its session open."""
    relay = Relay(url)
    settings = connection.settings_dict
    before = settings.copy()
    parts = urlsplit(relay.url)
    connection.close()
    settings.update(HOST=parts.hostname, PORT=parts.port, OPTIONS={"sslmode": "disable"})
    try:
        connection.ensure_connection()
        yield relay
    finally:
        connection.close()
        settings.update(before)
        relay.close()


def count(url: str, function: Callable[[], object]) -> Counts:
    """What the server answers while a function of this process is called."""
    with counted(url) as relay:
        before = relay.counts
        function()
        return relay.counts - before
