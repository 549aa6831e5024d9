"""A database as this process reaches it, and what the doctor finds about it."""

import enum
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partialmethod
from typing import TypeVar

from django.db import Error, connections

from once.databases import Database, threads
from once.databases.lock import AdvisoryLock
from once.routines.names import RESERVED
from once.routines.registry import Registry

#: Seconds for one question to a database, connecting included.
DEADLINE = 15.0
#: Seconds in which a second connection must be had while a first one is in a transaction.
PATIENCE = 5.0

T = TypeVar("T")


class Level(enum.StrEnum):
    """The level of a finding."""

    #: As it must be, or a fact that is good to know.
    OK = "ok"
    #: The promise is kept, but a person should look.
    WARNING = "warning"
    #: The promise cannot be kept, or nothing can run.
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of looking at one thing."""

    #: The thing, in one word that does not change from release to release.
    id: str
    #: Alias of the database.
    database: str
    level: Level = Level.OK
    #: The finding, in sentences.
    message: str
    #: The next step; empty where nothing is to be done.
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A database as this process reaches it, and the routines of this code."""

    database: Database
    registry: Registry
    #: Name of the lock: a new one each time, so that two examinations do not meet.
    name: str = field(default_factory=lambda: f"{RESERVED}doctor.{uuid.uuid4().hex}")

    def lock(self, liveness: float = PATIENCE) -> AdvisoryLock:
        """Return a lock that no routine has."""
        return self.database.lock(self.name, liveness)

    def ask(self, question: Callable[[], T]) -> T:
        """Return the answer to a question that another process asks.

        Raises:
            TimeoutError: no answer came within :data:`DEADLINE` seconds.

        """
        return self.beside(question).result(DEADLINE)

    def beside(self, function: Callable[[], T]) -> "Future[T]":
        """Call a function as another process would: in a thread that has a session of its own."""
        like = self.database.copy()

        def serve() -> T:
            if self.database.is_server:
                connections[self.database.using] = like
            with self.database.session():
                return function()

        answer: Future[T] = Future()
        if self.database.is_server:
            # Because a thread in a silent network must not hold up the end of this process.
            threads.start(lambda: threads.fulfil(answer, serve), "once doctor")
        else:
            threads.fulfil(answer, serve)  # in memory, another thread may have another database
        return answer

    def advice(self, error: Error) -> str:
        """Return what to do about an error; empty where its message must do."""
        advice = self.database.advice(error)
        if advice or not self.database.is_lost(error):
            return advice
        return (
            "Check that it runs and has connections to spare, and that "
            f"DATABASES[{self.database.using!r}] is right."
        )

    def _finding(self, name: str, message: str, hint: str = "", *, level: Level) -> Finding:
        return Finding(
            id=name, database=self.database.using, level=level, message=message, hint=hint
        )

    def server(self, oldest: tuple[int, ...] = ()) -> Finding:
        """Return the server's kind and version, as a fault if that is below the oldest one."""
        connection = self.database.connection
        version = connection.get_database_version()
        message = f"{connection.display_name} {'.'.join(map(str, version))}."
        if version >= oldest:
            return self.ok("server", message)
        needed = f"{connection.display_name} {oldest[0]}"
        return self.fault("server", message, f"It must be {needed} or newer: upgrade the server.")

    ok = partialmethod(_finding, level=Level.OK)
    warning = partialmethod(_finding, level=Level.WARNING)
    fault = partialmethod(_finding, level=Level.FAULT)
