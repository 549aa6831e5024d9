"""Proofs that guards and work sessions do in a database what the protocol needs of them.

They know no routine and no record. Whatever asks a server does so as another process would: in a
thread that has a session of its own, within a deadline.
"""

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from django.db import Error, connections

from once.base import RESERVED
from once.databases import Database
from once.exceptions import CannotFence
from once.findings import Finding, Level
from once.guards import Guard

__all__ = ["DEADLINE", "Proofs"]

#: Seconds for one question to a database, connecting included.
DEADLINE = 15.0
#: Seconds in which a second connection must be had while a first one is in a transaction.
_PATIENCE = 5.0
#: Seconds of silence after which a guard is to be evicted here, and how late that may be.
_LIVENESS = 2.0
_GRACE = 1.0
#: How many other sessions must be refused the lock: a balancer spreads them over its servers.
_RIVALS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """Of one database. Each presupposes those before it."""

    here: Database
    #: What is locked: another name each time, so that two examinations do not meet.
    name: str = field(default_factory=lambda: f"{RESERVED}doctor.{uuid.uuid4().hex}")

    def pool(self) -> list[Finding]:
        """Whether the work has a connection while the guard keeps one."""
        if not self.here.is_server:
            return []
        with self._guard() as guard:
            guard.acquire()
            work = self.beside(self._begin_work)
            try:
                work.result(_PATIENCE)
            except TimeoutError:
                return [
                    self.fault(
                        "pool",
                        "A guard had a connection, and the work beside it had none within "
                        f"{_PATIENCE:.0f} s: a pooler lends too few, or all are in use.",
                        "Have the pooler lend at least 2 to this database and user, better 5 "
                        "(default_pool_size, or pool_size, in PgBouncer). If routines run now, "
                        "run this again when they are done.",
                    )
                ]
            guard.ping()
        return [self.ok("pool", "Guard and work have a connection each, at the same time.")]

    def _begin_work(self) -> None:
        with self.here.work():
            self.here.lock_work(self.name)

    def exclusion(self) -> list[Finding]:
        """Whether the lock keeps others out, and lets them in after its release."""
        with self._guard() as guard:
            if not guard.acquire():  # where there is one lock for all routines
                guard.find_holder()
                message = f"The lock, which is held by {guard.holder}, is refused to others."
                return [self.ok("exclusion", message)]
            for _ in range(_RIVALS):
                with self._guard() as rival:
                    if rival.acquire():
                        return [self._two_holders(guard, rival)]
        with self._guard() as successor:
            if not successor.acquire() and self.here.is_server:
                successor.find_holder()
                return [
                    self.fault(
                        "exclusion",
                        f"The lock was released, and {successor.holder} still holds it.",
                        "Have the pooler reset sessions (server_reset_query in PgBouncer).",
                    )
                ]
        message = f"{_RIVALS} other sessions were refused a lock that one held; then one had it."
        return [self.ok("exclusion", message)]

    def _two_holders(self, one: Guard, other: Guard) -> Finding:
        places = [guard.read(self.here.place) for guard in (one, other)]
        hint = "See what stands before the server: each transaction must stay on one connection."
        where = f"both on {places[0]}"
        if places[0] != places[1]:
            where = f"one on {places[0]}, the other on {places[1]}"
            hint = (
                f"DATABASES[{self.here.using!r}] must always lead to one and the same database: "
                "name the primary there, and no balancer over several servers."
            )
        message = f"Two sessions held the same lock at the same time, {where}."
        return self.fault("exclusion", message, hint)

    def eviction(self) -> list[Finding]:
        """Whether the server evicts who falls silent."""
        if not self.here.is_server:
            message = (
                "A process that dies frees the lock. One that is frozen keeps it, as it keeps the "
                "write lock: nobody evicts it."
            )
            return [self.ok("eviction", message)]
        begun = monotonic()
        with self._guard(_LIVENESS) as guard:
            guard.acquire()
            guard.fall_silent()
            since = monotonic()
            seconds = self.ask(lambda: self._until_free(since))
            lasted = monotonic() - begun
        if seconds is None:
            return [
                self.fault(
                    "eviction",
                    f"A guard that was silent for {_LIVENESS:.0f} s was not evicted within "
                    f"{_LIVENESS + _GRACE:.0f} s: a frozen process would keep the lock.",
                    "See whether something before the server answers in its place, or the server "
                    "is overloaded.",
                )
            ]
        if lasted < 0.9 * _LIVENESS:
            return [
                self.fault(
                    "eviction",
                    f"A guard lasted for {lasted:.1f} s, though it may be silent for "
                    f"{_LIVENESS:.0f} s.",
                    "See which timeout ends idle transactions (idle_transaction_timeout in "
                    "PgBouncer), and raise it above ONCE_LIVENESS_TIMEOUT.",
                )
            ]
        message = f"A guard that fell silent was evicted after {seconds:.1f} s."
        return [self.ok("eviction", message)]

    def _until_free(self, since: float) -> float | None:
        """Seconds until nobody held the guard, or nothing where it took too long."""
        while True:
            is_late = monotonic() - since > _LIVENESS + _GRACE
            if self.here.holder(self.name) is None:
                return monotonic() - since
            if is_late:
                return None
            time.sleep(0.1)

    def fencing(self) -> list[Finding]:
        """Whether a successor could end the session in which its predecessor works."""
        if not self.here.is_server:
            return []
        is_marked, is_over = threading.Event(), threading.Event()

        def zombie() -> None:
            try:
                with self.here.work():
                    self.here.lock_work(self.name)
                    is_marked.set()
                    is_over.wait(DEADLINE)
                    with self.here.connection.cursor() as cursor:
                        cursor.execute("SELECT 1")
            finally:
                is_marked.set()  # or never to be

        work = self.beside(zombie)
        try:
            is_marked.wait(DEADLINE)
            ended = self.ask(lambda: self.here.end_work(self.name))
        except CannotFence as error:
            message = str(error).replace("A predecessor's", "A session's")
            return [self.fault("fencing", message)]
        finally:
            is_over.set()
            problem = _outcome(work)
        if isinstance(problem, Error):
            if not ended:
                raise problem  # nobody ended it
            return [self.ok("fencing", "A session that works was found and ended by another.")]
        return [
            self.fault(
                "fencing",
                "A session that works was found by another, and not ended."
                if ended
                else "A session that works was not found by another.",
                "See what stands before the server, and which rights this user has there.",
            )
        ]

    def _guard(self, liveness: float = _PATIENCE) -> Guard:
        return self.here.guard(self.name, liveness)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that another process asks.

        Raises:
            TimeoutError: there was none in time.

        """
        return self.beside(question).result(DEADLINE)

    def beside(self, function: Callable[[], T]) -> "Future[T]":
        """Do something as another process would: in a thread, which has a session of its own."""
        answer: Future[T] = Future()
        like = self.here.copy()

        def serve() -> None:
            try:
                if self.here.is_server:
                    connections[self.here.using] = like
                with self.here.session():
                    result = function()
            except BaseException as error:  # raised where the answer is asked for
                answer.set_exception(error)
            else:
                answer.set_result(result)

        if self.here.is_server:
            # A daemon: where a network is silent it must not hold up the end of this process.
            threading.Thread(target=serve, name="once doctor", daemon=True).start()
        else:
            serve()  # in memory, another thread may have another database
        return answer

    def advice(self, error: Error) -> str:
        """What to do about an error; empty where its message must do."""
        advice = self.here.advice(error)
        if advice or not self.here.is_lost(error):
            return advice
        return (
            "Check that it runs and has connections to spare, and that "
            f"DATABASES[{self.here.using!r}] is right."
        )

    def ok(self, name: str, message: str) -> Finding:
        return Finding(id=name, database=self.here.using, message=message)

    def warning(self, name: str, message: str, hint: str) -> Finding:
        return Finding(
            id=name, database=self.here.using, level=Level.WARNING, message=message, hint=hint
        )

    def fault(self, name: str, message: str, hint: str = "") -> Finding:
        return Finding(
            id=name, database=self.here.using, level=Level.FAULT, message=message, hint=hint
        )


def _outcome(answer: "Future[None]") -> BaseException | None:
    with suppress(TimeoutError):
        return answer.exception(DEADLINE)
    return None
