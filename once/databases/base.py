"""The face that every supported kind of database shows to the protocol."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeAlias

from django.db import DataError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases.lock import AdvisoryLock
from once.databases.transactions import TransactionState, WorkTransaction
from once.exceptions import InsideTransaction
from once.text import one_line

#: Django's ``execute_wrapper``: the call to make, and the call's context.
Execute: TypeAlias = Callable[[str, Any, bool, dict[str, Any]], Any]
Context: TypeAlias = dict[str, Any]

#: Seconds in which a connection of a run has to answer, if its caller says nothing else.
PATIENCE = 10.0


class Database(ABC):
    """A database of the project, by its alias, seen through the calling thread's connection."""

    #: True if there is a server, which lends connections and evicts a holder that falls silent.
    is_server: ClassVar[bool] = True
    #: True if the mark of :meth:`mark_backend` outlives transactions. Ending the session that bears
    #: it then also ends a migration that cannot be rolled back.
    has_fenced_ddl: ClassVar[bool] = False
    #: True if one message may hold several statements.
    takes_messages: ClassVar[bool] = False
    #: SQL that ends a SELECT which locks the rows that it finds.
    row_lock: ClassVar[str] = "FOR UPDATE"

    #: The codes of errors, by what was in the way or went wrong: see the methods that ask.
    conflicts: ClassVar[Collection[object]]
    locked_errors: ClassVar[Collection[object]]
    read_only_errors: ClassVar[Collection[object]]
    aborted_errors: ClassVar[Collection[object]] = ()
    no_savepoint_errors: ClassVar[Collection[object]] = ()
    no_transaction_errors: ClassVar[Collection[object]] = ()
    text_errors: ClassVar[Collection[object]] = ()
    cancelled_errors: ClassVar[Collection[object]] = ()

    def __init__(self, using: str) -> None:
        self.using = using

    @staticmethod
    def misfit(connection: Any) -> tuple[str, str] | None:
        """Return what is wrong with the driver, with a remedy, if it cannot keep the promise."""
        return None

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """The calling thread's own connection."""
        return connections[self.using]

    @abstractmethod
    def lock(self, name: str, liveness: float) -> AdvisoryLock:
        """Return the lock, not yet taken, under which one process at a time may start ``name``.

        Args:
            name: each schema of a database has a lock of its own for it.
            liveness: seconds after which the server evicts a holder that shows no sign of life.

        """

    @abstractmethod
    def holder(self, name: str) -> str | None:
        """Return the present holder of the lock of ``name``, for people to read, or ``None``."""

    def locked(self, names: Collection[str]) -> dict[str, bool]:
        """Return the names whose lock is taken now, each with whether by a process of once."""
        return {name: True for name in names if self.holder(name) is not None}

    def aware(self, moment: datetime) -> datetime:
        """Return a time by this database's clock, as Django read it, in UTC."""
        return moment.replace(tzinfo=UTC)  # whatever zone Django reads it in

    def copy(self) -> BaseDatabaseWrapper:
        """Return a connection like the calling thread's, not yet open, for another thread."""
        return self.connection.copy()

    def session(self, *, is_new: bool = False) -> AbstractContextManager[None]:
        """Return a context in which the calling thread's connection is fit for a run.

        A connection that was not open before is not open afterwards. Inside a transaction it is not
        fit: see :meth:`refuse_transaction`. A new one leads to the server that is primary now.
        """
        self.refuse_transaction()
        return self.reading()

    def refuse_transaction(self) -> None:
        """Raise ``InsideTransaction`` if nothing that a run records would be committed by it."""
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
        """Give questions outside of a run that many seconds for an answer.

        An open connection, as inside a transaction, is used as it is. A connection that was not
        open before is not open afterwards.
        """
        connection = self.connection
        was_open = connection.connection is not None
        try:
            yield
        finally:
            if not was_open and not connection.in_atomic_block:
                connection.close()

    def answering(self, seconds: float = PATIENCE) -> AbstractContextManager[None]:
        """Return a context in which a statement that gets no answer for that long is an error.

        Only where a run opened the connection itself, to a server.
        """
        return nullcontext()

    @abstractmethod
    def statements(self) -> AbstractContextManager[None]:
        """Return a context in which each statement is a transaction of its own.

        It reads what is committed and is durable once it returns. A server gets it as one message:
        a process that freezes leaves no lock behind.
        """

    def or_update(self, unique: Sequence[str], changed: Sequence[str]) -> str:
        """Return SQL that ends an INSERT which changes columns of a row that is there already."""
        changes = ", ".join(f"{column} = excluded.{column}" for column in changed)
        return f"ON CONFLICT ({', '.join(unique)}) DO UPDATE SET {changes}"

    def among(self, names: Sequence[str]) -> tuple[str, list[str]]:
        """Return SQL that asks if a column is one of these names, and its parameters."""
        return f"IN ({', '.join(['%s'] * len(names))})", [*names]

    def work(self) -> WorkTransaction:
        """Return the transaction that a body's effects and their record share, as a context."""
        return WorkTransaction(self)

    def beginning(self) -> AbstractContextManager[None]:
        """Return a context for the BEGIN of :meth:`work`."""
        return nullcontext()

    @abstractmethod
    def transaction(self) -> TransactionState:
        """Return how the transaction of the open session stands."""

    @contextmanager
    def migration(self) -> Iterator[None]:
        """Open the transaction that a migration and the record of it share."""
        with self.work():
            yield

    @abstractmethod
    def mark_backend(self, name: str, key: Any = None) -> Any:
        """Mark the transaction in hand, by its first statement, as working on ``name``.

        Args:
            name: the name.
            key: what an earlier call for the name returned, which saves the server computing it.

        Returns:
            A true value, the key of the mark where the server has one; or a false value if another
            transaction bears that mark now.

        """

    def unmark_backend(self) -> None:
        """Remove what :meth:`mark_backend` left in the session, if it outlives a transaction."""

    def lock_table(self, table: str, *, alone: bool = False) -> None:
        """Keep other sessions from writing to a table, until the transaction in hand ends.

        With ``alone`` they do not read it either.
        """

    def sync(self) -> None:
        """Have the transaction in hand be durable once its COMMIT returns."""

    def limit_statements(self, seconds: float) -> None:
        """Have the server, if it can, cancel a statement of the transaction after that long."""

    @contextmanager
    def limiting_locks(self, seconds: float) -> Iterator[tuple[float, int | None]]:
        """Have one statement be an error, without effect, if it waits for a lock for so long.

        A shorter limit of the project stays, and so does what a SET said. Yields the seconds that
        hold, 0 for no limit, and the id of the session, where :meth:`AdvisoryLock.blockers` has it.
        """
        yield 0.0, None

    @abstractmethod
    def terminate_backend(self, name: str) -> int:
        """End every other session whose open transaction bears the mark; return their number."""

    @abstractmethod
    def code(self, error: BaseException) -> int | str | None:
        """Return the code that the database gave an error, or ``None``."""

    def is_conflict(self, error: BaseException) -> bool:
        """True if another transaction was in the way: the same may succeed if repeated."""
        return self.code(error) in self.conflicts

    def is_locked(self, error: BaseException) -> bool:
        """True if a lock that another session holds was in the way."""
        return self.code(error) in self.locked_errors

    def is_in_the_way(self, error: BaseException) -> bool:
        """True if another session was in the way, by its transaction or by a lock."""
        return self.is_conflict(error) or self.is_locked(error)

    def obstacle(self, error: Exception) -> str:
        """Return what was in the way, as far as the server says so when it is asked now."""
        return one_line(error)

    def is_cancelled(self, error: BaseException) -> bool:
        """True if a statement took longer than it may, or a person cancelled it."""
        return self.code(error) in self.cancelled_errors

    @abstractmethod
    def is_lost(self, error: BaseException) -> bool:
        """True if the connection is of no use: gone, not to be had, or to a read-only server."""

    def is_aborted(self, error: BaseException) -> bool:
        """True if an earlier error, which a caller caught, made the transaction useless."""
        return self.code(error) in self.aborted_errors

    def lacks_savepoint(self, error: BaseException) -> bool:
        """True if the transaction that a savepoint belongs to has ended."""
        return self.code(error) in self.no_savepoint_errors

    def wants_no_transaction(self, error: BaseException) -> bool:
        """True if a statement was refused because it cannot be part of a transaction."""
        return self.code(error) in self.no_transaction_errors

    def is_unwritable_text(self, error: Exception) -> bool:
        """True if the charset of the database, or of the connection, lacks a character."""
        is_of_text = isinstance(error, DataError | UnicodeEncodeError)
        return is_of_text or self.code(error) in self.text_errors

    def advice(self, error: BaseException) -> str:
        """Return what to do about an error whose cause is how the database is set up; or empty."""
        if self.code(error) in self.read_only_errors:  # it is a replica, or was set so
            return (
                f"It admits no writes: see that DATABASES[{self.using!r}] leads to the primary, "
                "and that nothing keeps this user from writing there."
            )
        return ""
