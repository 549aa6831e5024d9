"""Calls a body, inside a transaction or outside, and sees that it left the connection intact."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from once.databases import Database, database, discard
from once.databases.messages import preceded
from once.databases.tables import execute
from once.engine import shutdown
from once.exceptions import BodyError
from once.routines.base import Routine, Run
from once.text import one_line

T = TypeVar("T")

#: Begins what a body may not end: every work transaction has it.
SAVEPOINT = "SAVEPOINT once_body"


def call(routine: Routine, run: Run, *batch: Any) -> None:
    """Call a body inside the transaction in hand, which it may not end, break or leave.

    The transaction has :data:`SAVEPOINT`, and what is done next is done in :func:`intact`.
    """
    if inspect.iscoroutinefunction(routine.function):
        _refuse_other_thread(connections[routine.using])
    _inside(routine.using, "The body", partial(_call, routine, run, *batch))


def call_alone(routine: Routine, run: Run, *batch: Any) -> None:
    """Do the same where the transaction has no savepoint, and nothing need be done next."""
    here = database(routine.using)
    execute(here.connection, SAVEPOINT)
    call(routine, run, *batch)
    with intact(here):
        pass


def is_found(routine: Routine) -> bool:
    """Return what ``done_if`` answers inside the transaction in hand, on the same terms."""

    def find() -> bool:
        with shutdown.heeded():
            return routine.is_found()

    return _inside(routine.using, "done_if=", find)


def _inside(using: str, what: str, function: Callable[[], T]) -> T:
    """Call a function of the project, which may not break or leave the transaction."""
    connection = connections[using]
    session = connection.connection
    answer = function()
    if connection.closed_in_transaction or connection.connection is not session:
        raise BodyError(
            f"{what} closed the connection that its transaction lives on. Remove "
            "connection.close() or close_old_connections() from it."
        )
    if connection.needs_rollback:
        raise BodyError(
            f"{what} asked for a rollback: by transaction.set_rollback(True), or by catching a "
            "database error inside the transaction. Wrap what may fail in transaction.atomic()."
        )
    return answer


@contextmanager
def intact(here: Database, what: str = "The body") -> Iterator[None]:
    """A context for what is done next: its first statement releases :data:`SAVEPOINT`.

    Raises:
        BodyError: there is no such savepoint any more, because the transaction ended, or is
            useless.

    """
    try:
        with preceded(here, "RELEASE SAVEPOINT once_body"):
            yield
    except DatabaseError as error:
        if here.is_aborted(error):
            raise BodyError(
                f"{what} caught a database error, after which its transaction is useless; it was "
                "rolled back. Wrap what may fail in transaction.atomic()."
            ) from error
        if here.lacks_savepoint(error):
            raise BodyError(
                f"{what} ended its transaction itself, by COMMIT, ROLLBACK or a statement that "
                "commits. What it committed stays and is not recorded. Leave BEGIN, COMMIT and "
                f"ROLLBACK to once. ({one_line(error)})"
            ) from error
        raise


def _refuse_other_thread(connection: BaseDatabaseWrapper) -> None:
    """See that what a coroutine asks of the database comes back to this thread's connection."""
    alias = connection.alias
    if async_to_sync(sync_to_async(lambda: connections[alias]))() is not connection:
        raise BodyError(
            "An `async def` body would use another connection here, outside of the transaction: "
            "under gevent, threads are not what asyncio takes them for. Make it a plain `def`, or "
            "have `manage.py once run` run it before the server starts."
        )


def call_outside(routine: Routine, run: Run) -> None:
    """Call a body outside of any transaction but a test's, with no connection idle meanwhile."""
    connection = connections[routine.using]
    if connection.in_atomic_block:  # a test's, which stays usable after a database error
        with transaction.atomic(using=routine.using):
            _call(routine, run)
        return
    # Because a server or a pooler may end an idle session, none is left open.
    connection.close()
    try:
        _call(routine, run)
    finally:
        is_left_open = discard(database(routine.using))
    if is_left_open:
        raise BodyError(
            "The body left a transaction open, and what it did there is undone. Commit it, or "
            "wrap it in transaction.atomic()."
        )


def _call(routine: Routine, run: Run, *batch: Any) -> None:
    # A coroutine goes on in a thread of its own, which no signal breaks off.
    may_break_off = routine.kind == "atomic" and not inspect.iscoroutinefunction(routine.function)
    try:
        with shutdown.heeded() if may_break_off else nullcontext():
            try:
                routine.call(run, *batch)
            except BaseException:
                shutdown.heed()  # because what then fails in its clean-up is not the reason
                raise
    except SystemExit as error:
        raise exit_of_body(error) from error


def refuse_own_lock(here: Database, error: Exception) -> None:
    """Raise where the lock that a body waited for is its own, which no repetition frees."""
    # Because SQLite admits one writer, and that is the transaction in hand, it is not in its
    # own way: another connection is.
    if not here.is_server:
        raise BodyError(
            "A thread or asyncio.run() in the body writes through a connection of its own, which "
            "waits for the body's own transaction: SQLite admits one writer. Write in the body's "
            f"own thread, or declare the routine atomic=False. ({one_line(error)})"
        ) from error


def exit_of_body(error: SystemExit) -> BodyError:
    """Return the error to raise instead of a body's ``SystemExit``."""
    return BodyError(
        "The body, or a signal handler of the server while it ran, called "
        f"sys.exit({error.code!r:.300}), which would pass for the end of the program. "
        "A body should return, or raise what went wrong."
    )
