"""Several statements for PostgreSQL as one message: one round trip, with nothing in between."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from once.databases.base import Context, Execute

__all__ = ["followed", "message", "whole_savepoint", "whole_transaction"]

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


def followed(
    execute: Execute, sql: str, params: Any, many: bool, context: Context, *, by: Sequence[str]
) -> Any:
    """Send a statement and those that follow as one message (execute_wrapper of Django)."""
    return _framed((), by, execute, sql, params, many, context)


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


def message(connection: Any, *statements: tuple[str, Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
    """Send statements as one message; return the rows that each answers."""
    sql = "; ".join(sql for sql, _ in statements)
    params = [param for _, params in statements for param in params]
    answers = []
    with connection.cursor() as cursor, _unprepared(connection):
        cursor.execute(*_for_message(connection, sql, params))
        while True:
            answers.append(cursor.fetchall() if cursor.description else [])
            if not cursor.nextset():
                return answers


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
