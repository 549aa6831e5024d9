"""Chooses a server for each request, as the service of a Kubernetes cluster does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from example.demo import interrupts, pages
from example.demo.servers import Server

__all__ = ["Balancer"]

#: Seconds between two probes.
PERIOD = 0.1
#: Answers other than 200, in a row, after which a server that was ready is not.
MISSES = 3


@dataclass(kw_only=True, eq=False)
class _Endpoint:
    """A server, as the balancer sees it."""

    server: Server
    is_ready: bool = False
    #: The last answer to the probe.
    status: int = 0
    misses: int = 0
    in_flight: int = 0
    #: Nothing more is to be asked.
    is_over: threading.Event = field(default_factory=threading.Event)

    def probe(self) -> None:
        """Ask again and again whether the server is ready."""
        while not self.is_over.wait(PERIOD):
            self.status = pages.probe(self.server.address)
            self.misses = 0 if self.status == 200 else self.misses + 1
            self.is_ready = self.status == 200 or (self.is_ready and self.misses < MISSES)


class Balancer:
    """Gives each request to the next server of those whose readiness view says 200.

    A server that is not ready, or is drained, gets no new requests. What is sent is never sent
    again: a request that fails has failed.
    """

    def __init__(self) -> None:
        self._endpoints: list[_Endpoint] = []
        self._probes: list[threading.Thread] = []
        self._turn = 0
        self._lock = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with interrupts.postponed():
            for endpoint in self._endpoints:
                endpoint.is_over.set()
            for thread in self._probes:
                thread.join()

    def add(self, server: Server) -> None:
        """Have a server get requests as soon as it is ready."""
        endpoint = _Endpoint(server=server)
        thread = threading.Thread(target=endpoint.probe, name=f"probe of {server.name}")
        with interrupts.postponed(), self._lock:
            self._endpoints.append(endpoint)
            self._probes.append(thread)
            thread.start()

    def is_ready(self, server: Server) -> bool:
        """Whether a server gets requests."""
        return self._find(server).is_ready

    def status(self, server: Server) -> int:
        """What a server answered last when it was asked whether it is ready; 0 for nothing."""
        return self._find(server).status

    def drain(self, server: Server) -> None:
        """Send nothing more to a server, and return when it has answered everything."""
        endpoint = self._find(server)
        with self._lock:
            endpoint.is_over.set()
            self._endpoints.remove(endpoint)
            self._lock.wait_for(lambda: not endpoint.in_flight)

    @contextmanager
    def server(self) -> Iterator[Server | None]:
        """The server for one request; ``None`` where no one is ready."""
        with self._lock:
            ready = [endpoint for endpoint in self._endpoints if endpoint.is_ready]
            if ready:
                self._turn += 1
                endpoint = ready[self._turn % len(ready)]
                endpoint.in_flight += 1
        if not ready:
            yield None
            return
        try:
            yield endpoint.server
        finally:
            with self._lock:
                endpoint.in_flight -= 1
                self._lock.notify_all()

    def _find(self, server: Server) -> _Endpoint:
        return next(one for one in self._endpoints if one.server is server)
