"""The system of somebody else, which the project tells of each release."""

import json
import threading
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from example.demo import interrupts

__all__ = ["Partner"]


class Partner:
    """Does what it is asked once for each idempotency key, and counts how often it was asked."""

    def __init__(self) -> None:
        #: The release of each key that it acted on.
        self.releases: dict[str, int] = {}
        #: How often each key came.
        self.asked: Counter[str] = Counter()
        #: Whether an answer is held back.
        self.holds = threading.Event()
        self._hold_next: int | None = None
        self._may_answer = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[0.1], name="partner", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/releases/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with interrupts.postponed():
            self.let_go()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def hold(self, release: int) -> None:
        """Have it act when it is told of a release, but give no answer to the first who tells."""
        self._hold_next = release

    def let_go(self) -> None:
        """Give the answer that is held back."""
        self._may_answer.set()

    def act(self, key: str, release: int) -> None:
        """Take note of a release, unless it is known by its key."""
        with self._lock:
            self.asked[key] += 1
            self.releases.setdefault(key, release)
            is_held = self._hold_next == release
            if is_held:
                self._hold_next = None
        if is_held:
            self.holds.set()
            self._may_answer.wait()


def _handler(partner: Partner) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            release = json.loads(self.rfile.read(length))["release"]
            partner.act(self.headers["Idempotency-Key"], release)
            with suppress(ConnectionError):  # who asked may be dead
                self.send_response(204)
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing: it is the demonstration that talks."""

    return Handler
