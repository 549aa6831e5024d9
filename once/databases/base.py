"""The face that every supported kind of database shows to the protocol."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, ClassVar
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from once import conf
from once.databases import answers
from once.exceptions import InsideTransaction
from once.findings import Finding
from once.guards import Guard

__all__ = ["PATIENCE", "SUPPORTED", "Database", "ServerDatabase", "apart", "database"]

#: Vendor of a Django connection to the class that serves it; "mysql" is MariaDB's as well.
SUPPORTED = {
    "mysql": "once.databases.mysql.MySQL",
    "postgresql": "once.databases.postgresql.PostgreSQL",
    "sqlite": "once.databases.sqlite.SQLite",
}

#: Seconds in which a connection of a run has to answer, where its caller says nothing else.
PATIENCE = 10.0

#: Wrappers of connections that runs opened for themselves, and seconds in which each has to answer.
_own: WeakKeyDictionary[BaseDatabaseWrapper, float] = WeakKeyDictionary()


class Database(ABC):
    """One database of the project, by its alias, seen through the calling thread's connection."""

    #: Whether there is a server, which lends connections and evicts who falls silent.
    is_server: ClassVar[bool] = True
    #: Whether the mark of :meth:`lock_work` outlives transactions, so that ending who bears it
    #: also ends a migration that cannot be rolled back.
    has_fenced_ddl: ClassVar[bool] = False

    def __init__(self, using: str) -> None:
        self.using = using

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The calling thread's own connection."""
        return connections[self.using]

    @abstractmethod
    def guard(self, name: str, liveness: float, before: Guard | None = None) -> Guard:
        """The guard, not yet held, under which one process at a time may start ``name``.

        Args:
            name: what is guarded; each schema of a database has its own.
            liveness: seconds after which the server evicts a holder that shows no sign of life.
            before: a guard of this database, held or not, that is not needed from then on: what it
                has is released, or taken over.

        """

    @abstractmethod
    def holder(self, name: str) -> str | None:
        """Who holds the guard of ``name`` now, for people to read; ``None`` where nobody does."""

    def held(self, names: Collection[str]) -> set[str]:
        """Those of these names whose guard somebody holds now."""
        return {name for name in names if self.holder(name) is not None}

    def aware(self, moment: datetime) -> datetime:
        """A time by this database's clock, as Django read it, in UTC.

        Without ``USE_TZ`` Django reads times without a zone: in that of ``TIME_ZONE``.
        """
        zone = self.connection.timezone_name
        if moment.tzinfo is None and zone is not None:
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        return moment.astimezone(UTC)

    def copy(self) -> BaseDatabaseWrapper:
        """A connection like the calling thread's, not yet open, for another thread."""
        return self.connection.copy()

    def session(self) -> AbstractContextManager[None]:
        """A context in which the calling thread's connection is fit for a run.

        Where it was not open before it is not open afterwards.

        Raises:
            InsideTransaction: the thread is inside a transaction, or would be in one for ever.

        """
        self._refuse_transaction()
        return self.reading()

    def _refuse_transaction(self) -> None:
        connection = self.connection
        if connection.in_atomic_block:
            raise InsideTransaction(
                f"Routines were to be run inside a transaction of database {self.using!r}, which "
                "could undo their record. Call this outside of atomic() and of other routines' "
                "bodies."
            )
        is_open = connection.connection is not None
        if not (connection.autocommit if is_open else connection.settings_dict["AUTOCOMMIT"]):
            raise InsideTransaction(
                f"Autocommit is off for database {self.using!r}, so that nothing would be "
                "committed. Remove AUTOCOMMIT from DATABASES, or set_autocommit(False) from the "
                "caller."
            )

    @contextmanager
    def reading(self, seconds: float = PATIENCE) -> Iterator[None]:
        """A context for questions outside of a run, which end as well where no answer comes.

        Where the calling thread's connection is open, as inside a transaction, it is used as it is.
        Where it was not open before it is not open afterwards.
        """
        connection = self.connection
        was_open = connection.connection is not None
        try:
            yield
        finally:
            if not was_open and not connection.in_atomic_block:
                connection.close()

    def answering(self, seconds: float = PATIENCE) -> AbstractContextManager[None]:
        """A context in which a statement that gets no answer for that long is an error.

        Where a run opened the connection itself, on a server that can keep it waiting.
        """
        return nullcontext()

    @abstractmethod
    def statements(self) -> AbstractContextManager[None]:
        """A context in which each statement is a transaction of its own.

        It reads what is committed and is durable once it returns. Where there is a server, it
        reaches it whole, so that a process which freezes leaves no lock behind.
        """

    @property
    def row_lock(self) -> str:
        """What a SELECT ends with, in order to lock the rows that it finds."""
        return "FOR UPDATE"

    def among(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """SQL that asks of a column whether it is one of these names, and its parameters."""
        return f"IN ({', '.join(['%s'] * len(names))})", [*names]

    @contextmanager
    def work(self) -> Iterator[None]:
        """The transaction that a body's effects and their record share."""
        with transaction.atomic(using=self.using, durable=True):
            yield

    @contextmanager
    def migration(self) -> Iterator[None]:
        """The transaction that a migration and the record of it share."""
        with self.work():
            yield

    @abstractmethod
    def lock_work(self, name: str) -> bool:
        """Mark the transaction in hand as the one that works on ``name``; its first statement.

        Returns:
            Whether no other transaction bears that mark now.

        """

    def sync(self) -> None:
        """Have the transaction in hand be durable once its COMMIT returns."""

    def limit_statements(self, seconds: float) -> None:
        """Have the server cancel a statement of the transaction in hand after that long.

        Does nothing where a database has no such limit.
        """

    @abstractmethod
    def end_work(self, name: str) -> int:
        """End every other session whose open transaction bears the mark of ``name``.

        Returns:
            How many were told to end.

        Raises:
            CannotFence: this user may not end them.

        """

    @abstractmethod
    def is_conflict(self, error: BaseException) -> bool:
        """Whether another transaction was in the way, so that the same may succeed if repeated."""

    @abstractmethod
    def is_locked(self, error: BaseException) -> bool:
        """Whether a lock that another session holds was in the way."""

    @abstractmethod
    def is_lost(self, error: BaseException) -> bool:
        """Whether the connection is gone or could not be made."""

    def is_aborted(self, error: BaseException) -> bool:
        """Whether an error inside the transaction, caught by somebody, made it useless."""
        return False

    def problems(self) -> list[tuple[str, str]]:
        """What of its configuration keeps the protocol from working, each with a remedy."""
        return []

    def place(self) -> str:
        """The server and database that the session is on, for people to read and to compare."""
        return f"{self.connection.settings_dict['NAME']}"

    def examine(self) -> Iterator[Finding]:
        """What is good to know of the server and of the session's settings, or wrong. Reads only.

        A fault with the id ``read-only`` says that nothing can be written here at all.
        """
        version = ".".join(map(str, self.connection.get_database_version()))
        yield Finding(
            id="server", database=self.using, message=f"{self.connection.display_name} {version}."
        )

    def advice(self, error: BaseException) -> str:
        """What to do about an error whose cause is how the database is set up; or empty."""
        return ""


class ServerDatabase(Database):
    """One that is reached over a network."""

    def copy(self) -> BaseDatabaseWrapper:
        # Not from a pool, whose threads and sessions would cross a fork; and without an answer
        # from a silent network not to be waited for as long as TCP would.
        own = apart(self.connection, max(2, min(10, round(conf.startup_timeout()))))
        _own[own] = PATIENCE
        initialize = own.init_connection_state

        def initialize_in_time() -> None:
            # Behind a pooler, what Django asks first waits for a server connection.
            with answers.expected(own, _own[own]):
                initialize()

        own.init_connection_state = initialize_in_time  # type: ignore[method-assign]
        return own

    @contextmanager
    def reading(self, seconds: float = PATIENCE) -> Iterator[None]:
        if self.connection.connection is not None or self.connection in _own:
            yield
            return
        with self._apart(), self.answering(seconds):
            yield

    def answering(self, seconds: float = PATIENCE) -> AbstractContextManager[None]:
        own = self.connection
        return self._answering(own, seconds) if own in _own else nullcontext()

    @contextmanager
    def _answering(self, own: BaseDatabaseWrapper, seconds: float) -> Iterator[None]:
        options = own.settings_dict["OPTIONS"]
        before, limit = _own[own], options["connect_timeout"]
        _own[own], options["connect_timeout"] = seconds, _shorter(limit, seconds)
        try:
            with own.execute_wrapper(answers.within(seconds)):
                yield
        finally:
            _own[own], options["connect_timeout"] = before, limit

    def session(self) -> AbstractContextManager[None]:
        self._refuse_transaction()
        return self._apart() if self.connection.connection is None else nullcontext()

    @contextmanager
    def _apart(self) -> Iterator[None]:
        before = self.connection
        connections[self.using] = own = self.copy()
        try:
            yield
        finally:
            own.close()
            connections[self.using] = before
            answers.rest()


def _shorter(limit: Any, seconds: float) -> int:
    """A limit to connecting that also keeps another one; 0 or less is none, 2 is the least."""
    most = max(2, math.ceil(seconds))
    return min(int(limit), most) if int(limit) > 0 else most


def apart(connection: BaseDatabaseWrapper, connect_timeout: int) -> BaseDatabaseWrapper:
    """A wrapper for a connection of its own; the timeout counts whole seconds, from 2 on."""
    copy: Any = connection.copy()
    if (tenant := getattr(connection, "tenant", None)) is not None:
        copy.set_tenant(tenant)  # as django-tenants calls what a wrapper sets the search_path by
    copy.settings_dict["OPTIONS"].pop("pool", None)
    copy.settings_dict["OPTIONS"].setdefault("connect_timeout", connect_timeout)
    wrapper: BaseDatabaseWrapper = copy
    return wrapper


def database(using: str) -> Database:
    """The database of this alias.

    Raises:
        ImproperlyConfigured: its kind is not supported.

    """
    vendor = connections[using].vendor
    if vendor not in SUPPORTED:
        raise ImproperlyConfigured(
            f"Database {using!r} is of the kind {vendor!r}, which has no guard. "
            f"Supported: {', '.join(SUPPORTED)}."
        )
    return _kind(vendor)(using)


@cache
def _kind(vendor: str) -> type[Database]:
    module, _, name = SUPPORTED[vendor].rpartition(".")
    kind: type[Database] = getattr(import_module(module), name)
    return kind
