"""A constant stream of requests, and an honest count of those that failed."""

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from time import monotonic
from types import TracebackType
from typing import Self

from example.demo import interrupts, pages
from example.demo.balancer import Balancer

__all__ = ["Load"]

CLIENTS = 4
#: Requests in a second, by all of them.
RATE = 30


class Load:
    """Clients that ask for one page after the other, through the balancer.

    Whatever is not the right answer has failed, and nothing is tried again: an error of the
    connection, another status, another body, or no server that is ready.
    """

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.sent: Counter[pages.Page] = Counter()
        self.failures: Counter[str] = Counter()
        self.slowest = 0.0
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS, thread_name_prefix="client")
        self._clients: list[Future[None]] = []

    def __enter__(self) -> Self:
        with interrupts.postponed():
            self._clients = [self._pool.submit(self._run, number) for number in range(CLIENTS)]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with interrupts.postponed():
            self._ending.set()
            self._pool.shutdown()
        for client in self._clients:
            client.result()

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return self.failures.total()

    def _run(self, number: int) -> None:
        everything = (*pages.reads(), pages.VISIT)
        begun = monotonic()
        due = begun + number / RATE
        for page in islice(cycle(everything), number, None):
            # Whoever is late does not wait: slow answers make no less load.
            if self._ending.wait(max(0.0, due - monotonic())):
                break
            due += CLIENTS / RATE
            self._ask(page)
        self.seconds = monotonic() - begun

    def _ask(self, page: pages.Page) -> None:
        begun = monotonic()
        with self.balancer.server() as server:
            if server is None:
                problem = f"{page}: no server is ready"
            elif problem := pages.ask(server.address, page):
                problem = f"{server.name}, {problem}"
        with self._lock:
            self.sent[page] += 1
            self.slowest = max(self.slowest, monotonic() - begun)
            if problem:
                self.failures[problem] += 1
