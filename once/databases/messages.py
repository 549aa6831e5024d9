"""Several statements as one message: one round trip to PostgreSQL, with nothing in between.

To other databases, which take one statement at a time, they go one after the other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

from once.databases.base import Context, Database, Execute
from once.databases.tables import execute as send

#: SQL and its parameters.
Statement: TypeAlias = tuple[str, Sequence[Any]]

#: Because a statement that changes a table may wait for a body, a statement behind it gives up.
_IMPATIENT = "SET LOCAL lock_timeout = '250ms'"


def whole_transaction(
    execute: Execute,
    sql: str,
    params: Any,
    many: bool,
    context: Context,
    *,
    limits: Sequence[str] = (),
) -> Any:
    """Send a statement with its BEGIN and COMMIT as one message (execute_wrapper of Django).

    ``limits`` are statements that set limits for this transaction.
    """
    connection = context["connection"]
    is_locks = whole_savepoint in connection.execute_wrappers
    if is_locks or connection.in_atomic_block or not connection.autocommit:
        # Part of the caller's transaction, which is the caller's to end: a lock's, for example.
        return execute(sql, params, many, context)
    before = (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL synchronous_commit = on",
        _IMPATIENT,
        *limits,
    )
    try:
        return _framed(before, ("COMMIT",), execute, sql, params, many, context)
    except BaseException:
        with suppress(connection.Database.Error):
            connection.connection.rollback()
        raise


def whole_savepoint(execute: Execute, sql: str, params: Any, many: bool, context: Context) -> Any:
    """Send a statement and a savepoint that is rolled back as one message (execute_wrapper).

    The rollback frees the locks on tables that the statement took (manual, "Explicit Locking").
    """
    before = ("SAVEPOINT once_reading", _IMPATIENT)
    after = ("ROLLBACK TO SAVEPOINT once_reading", "RELEASE SAVEPOINT once_reading")
    return _framed(before, after, execute, sql, params, many, context)


def _framed(
    before: Sequence[str],
    after: Sequence[str],
    execute: Execute,
    sql: str,
    params: Any,
    many: bool,
    context: Context,
) -> Any:
    """Send a statement between two lists as one message, and go on to its own answer."""
    connection, cursor = context["connection"], context["cursor"]
    sql, params = _for_message(connection, sql, params)
    with _unprepared(connection):
        # A line each, because a statement may end with a comment.
        result = execute("\n; ".join((*before, sql, *after)), params, many, context)
    next_answer = cursor.nextset  # Django wraps it anew each time that it is asked for
    for _ in before:
        next_answer()
    return result


@contextmanager
def preceded(here: Database, sql: str) -> Iterator[None]:
    """Have a statement go before the next one of this context, or at its end if there is none."""
    if not here.takes_messages:
        send(here.connection, sql)
        yield
        return
    waiting = [sql]

    def with_it(execute: Execute, *call: Any) -> Any:
        before = [waiting.pop()] if waiting else []
        return _framed(before, (), execute, *call) if before else execute(*call)

    with here.connection.execute_wrapper(with_it):
        yield
    if waiting:
        send(here.connection, sql)


@contextmanager
def followed(here: Database, *by: str) -> Iterator[None]:
    """Have statements go behind the one statement of this context."""
    if not here.takes_messages:
        yield
        for sql in by:
            send(here.connection, sql)
        return
    with here.connection.execute_wrapper(partial(_framed, (), by)):
        yield


def together(here: Database, *statements: Statement) -> list[Any]:
    """Execute statements, one after the other.

    Returns:
        For each, the rows that it answers, or the number of rows that it changed.

    """
    if here.takes_messages:
        # Without the answers of statements around them, as of COMMIT.
        return message(here.connection, *statements)[: len(statements)]
    answers = []
    for sql, params in statements:
        with here.connection.cursor() as cursor:
            cursor.execute(sql, params)
            answers.append(_answer(cursor))
    return answers


def message(connection: Any, *statements: Statement) -> list[Any]:
    """Do the same as one message to PostgreSQL; SQL that holds several statements has as many."""
    sql = "; ".join(sql for sql, _ in statements)
    params = [param for _, params in statements for param in params]
    with connection.cursor() as cursor, _unprepared(connection):
        cursor.execute(*_for_message(connection, sql, params))
        answers = [_answer(cursor)]
        while cursor.nextset():
            answers.append(_answer(cursor))
    return answers


def _answer(cursor: Any) -> Any:
    return cursor.fetchall() if cursor.description else cursor.rowcount


def _for_message(connection: Any, sql: str, params: Any) -> tuple[str, Any]:
    """Return statements and parameters such that the server takes them as one message."""
    if params is not None and connection.features.uses_server_side_binding:
        return connection.ops.compose_sql(sql, params), None
    return sql, params  # Django's own cursor puts them in itself


@contextmanager
def _unprepared(connection: Any) -> Iterator[None]:
    """Have the driver prepare nothing, because only single statements can be."""
    if not connection.features.uses_server_side_binding:  # Django's own cursor prepares nothing
        yield
        return
    driver = connection.connection
    threshold, driver.prepare_threshold = driver.prepare_threshold, None
    try:
        yield
    finally:
        driver.prepare_threshold = threshold
