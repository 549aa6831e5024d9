"""A balancer that must not stand before a database: it spreads connections over two."""

import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit

__all__ = ["balanced"]

#: Wishes for encryption, which a server may refuse by a letter (manual, "Message Formats").
_WISHES = (80877103, 80877104)


@contextmanager
def balanced(url: str, *databases: str) -> Iterator[str]:
    """A URL that leads to one of several databases of a server after the other."""
    parts = urlsplit(url)
    turns = itertools.cycle(databases)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            with suppress(OSError):  # closed
                while True:
                    client, _ = server.accept()
                    threading.Thread(
                        target=_forward, args=(client, url, next(turns)), daemon=True
                    ).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"postgresql://{parts.username}:{parts.password or ''}@127.0.0.1:{port}/any"
        server.shutdown(socket.SHUT_RDWR)


def _forward(client: socket.socket, url: str, database: str) -> None:
    with client, suppress(OSError), _connect(url) as upstream:
        upstream.sendall(_startup(client, database))
        back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
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
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
