"""The transaction that a body's effects and their record share: committed, or undone, as a whole.

Django's ``atomic`` commits nothing, and says nothing, where autocommit is off. Interrupted before
its COMMIT or ROLLBACK it turns autocommit on all the same, which SQLite and MySQL take for a
COMMIT. Therefore a transaction begins on a session at rest, and one without an end loses its
session.
"""

import enum
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from django.db import Error, transaction

from once.exceptions import BodyError, InsideTransaction

if TYPE_CHECKING:
    from once.databases.base import Database


class TransactionState(enum.Enum):
    """The state of a session's transaction."""

    NONE = enum.auto()
    OPEN = enum.auto()
    #: An error made it useless; its COMMIT would be a rollback.
    ABORTED = enum.auto()
    UNKNOWN = enum.auto()


class WorkTransaction:
    """A transaction of the calling thread's connection: a context to enter once.

    A class, because an exception that a signal handler raises may leave a generator half-way. It
    would end later, in the middle of another transaction.
    """

    #: True once the database has acknowledged the COMMIT.
    is_committed = False
    #: True if this is part of a test's transaction, which nothing commits.
    is_nested = False

    def __init__(self, here: "Database") -> None:
        self._here = here
        self._connection = here.connection
        self._atomic = transaction.atomic(using=here.using, durable=True)
        self._is_marked = True

    def __enter__(self) -> Self:
        self._connection.ensure_connection()
        blocks: list[Any] = self._connection.atomic_blocks[-1:]
        self.is_nested = any(block._from_testcase for block in blocks)
        if not self.is_nested:
            refuse_left_open(self._here)
        try:
            with self._here.beginning():
                self._atomic.__enter__()
            # The first hook to run: errors of later ones come after the commit.
            transaction.on_commit(self._note, using=self._here.using)
        except BaseException:
            self._rest()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._refuse_ended()
            elif not self.is_nested:
                # Before Django's rollback, because an interrupted one is followed by a COMMIT.
                with suppress(Exception):
                    self._connection.connection.rollback()
            self._atomic.__exit__(kind, error, trace)
            self._unmark()
            if not self.is_nested:
                refuse_left_open(self._here)
        except BaseException as late:
            self._rest()
            if error is None and (first := self._first(late)) is not late:
                raise first from first.__cause__
            raise

    def _first(self, error: BaseException) -> BaseException:
        """Return what ended a COMMIT, which an error of Django's turn to autocommit may hide."""
        driver: Any = self._connection
        first, before = error, error.__context__
        while before is not None:
            if not isinstance(before, driver.Database.Error):
                first = before
            before = before.__context__
        return first

    def _refuse_ended(self) -> None:
        if self._here.transaction() in (TransactionState.NONE, TransactionState.ABORTED):
            raise BodyError(
                "The transaction ended, or an error in it was caught, before its COMMIT. See what "
                "else sends statements on this connection: a trigger, or a wrapper of queries."
            )

    def _note(self) -> None:
        self.is_committed = True
        # Before the body's own hooks, because they may run another routine in this session.
        self._unmark()

    def _unmark(self) -> None:
        if self._is_marked:
            self._is_marked = False
            self._here.unmark_backend()

    def _rest(self) -> None:
        if not self.is_nested and is_left_open(self._here):
            discard(self._here)


def is_left_open(here: "Database") -> bool:
    """True if the connection is inside a transaction, or would be with its next statement."""
    connection = here.connection
    if connection.in_atomic_block or connection.connection is None:
        return connection.in_atomic_block
    return not connection.autocommit or here.transaction() in (
        TransactionState.OPEN,
        TransactionState.ABORTED,
    )


def refuse_left_open(here: "Database") -> None:
    """Raise ``InsideTransaction`` if other code left one open, in which nothing is committed."""
    if is_left_open(here):
        raise InsideTransaction(
            "A signal receiver, an on_commit hook or a throttle left a transaction of database "
            f"{here.using!r} open, or autocommit off. What it wrote there is undone. Have it "
            "commit, by transaction.atomic()."
        )


def put_to_rest(here: "Database") -> str:
    """Discard a session that other code left inside a transaction; return a message, or empty."""
    try:
        refuse_left_open(here)
    except InsideTransaction as error:
        discard(here)
        return str(error)
    return ""


def discard(here: "Database") -> bool:
    """Close the session, so that the server undoes what is open; return True if anything was."""
    was_open = is_left_open(here)
    connection = here.connection
    connection.in_atomic_block = connection.needs_rollback = False
    connection.closed_in_transaction = False
    connection.atomic_blocks, connection.savepoint_ids = [], []
    connection.run_on_commit, connection.run_commit_hooks_on_set_autocommit_on = [], False
    with suppress(Error):
        connection.close()
    if connection.connection is not None:  # SQLite in memory, which Django never closes
        connection.connection.rollback()
        connection.set_autocommit(True)
    return was_open
