"""Addresses that lead to more than one database: a balancer, and an address that is moved."""

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

__all__ = ["balanced", "moved"]

#: Wishes for encryption, which a server may refuse by a letter (manual, "Message Formats").
_WISHES = (80877103, 80877104)

_Way = Callable[[socket.socket, socket.socket], None]


@contextmanager
def balanced(url: str, *databases: str) -> Iterator[str]:
    """A URL that leads to one of several databases of a server after the other."""
    turns = itertools.cycle(databases)
    with _address(lambda: (url, next(turns))) as (host, port):
        yield f"{_credentials(url)}@{host}:{port}/any"


@contextmanager
def moved(target: list[str], database: str) -> Iterator[str]:
    """A URL that leads to a database of the last one of some servers.

    To append a server moves the address: sessions stay where they began. Where a server ends one,
    its client is told when it asks next, as behind a firewall.
    """
    with _address(lambda: (target[-1], database), way_back=_copy) as (host, port):
        yield f"{_credentials(target[0])}@{host}:{port}/{database}"


@contextmanager
def _address(
    choose: Callable[[], tuple[str, str]], way_back: _Way | None = None
) -> Iterator[tuple[str, int]]:
    """An address of which each connection leads to the server and database that are chosen."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # closed
                while True:
                    client, _ = server.accept()
                    threading.Thread(
                        target=_forward, args=(client, *choose(), way_back or _pump), daemon=True
                    ).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


def _credentials(url: str) -> str:
    parts = urlsplit(url)
    return f"postgresql://{parts.username}:{parts.password or ''}"


def _forward(client: socket.socket, url: str, database: str, way_back: _Way) -> None:
    with client, suppress(OSError), _connect(url) as upstream:
        upstream.sendall(_startup(client, database))
        back = threading.Thread(target=way_back, args=(upstream, client), daemon=True)
        back.start()
        _pump(client, upstream)
        back.join()


def _startup(client: socket.socket, database: str) -> bytes:
    """The first message of a client, with the database that it is to have."""
    while True:
        [length] = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
        message = client.recv(length - 4, socket.MSG_WAITALL)
        [code] = struct.unpack("!i", message[:4])
        if code not in _WISHES:
            break
        client.sendall(b"N")
    words = message[4:].rstrip(b"\0").split(b"\0")
    settings = dict(zip(words[::2], words[1::2], strict=True))
    settings[b"database"] = database.encode()
    told = b"".join(name + b"\0" + value + b"\0" for name, value in settings.items()) + b"\0"
    return struct.pack("!ii", len(told) + 8, code) + told


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query)["host"][0]
    if not host.startswith("/"):
        return socket.create_connection((host, parts.port or 5432))
    upstream = socket.socket(socket.AF_UNIX)
    upstream.connect(f"{host}/.s.PGSQL.{parts.port or 5432}")
    return upstream


def _pump(source: socket.socket, target: socket.socket) -> None:
    _copy(source, target)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
