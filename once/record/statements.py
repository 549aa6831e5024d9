"""The statements of the claim protocol that change the row of an attempt, or lock it.

They are written by hand, because a queryset takes longer to build than the server to answer.
"""

from collections.abc import Iterable

from once.databases import Database, database, tables
from once.databases.messages import Statement
from once.models import Attempt, Now, State

#: The states that an attempt may go to from each. An end is final: an attempt that ended has no
#: right to commit, and each update has the state that it comes from in its condition.
TRANSITIONS: dict[State, set[State]] = {state: set() for state in State}
TRANSITIONS[State.RUNNING] = {*State} - {State.RUNNING}
#: Columns whose value the database gives.
_OF_DATABASE = ("id", "started_at")


def claim(attempt: Attempt, *, is_first: bool = False) -> tuple[Statement, Statement]:
    """Return the statements that insert an attempt, and that find its id.

    The first attempt at a routine is inserted only where nothing is recorded of that.
    """
    here = _of(attempt)
    connection = here.connection
    fields = [each for each in Attempt._meta.concrete_fields if each.attname not in _OF_DATABASE]
    columns = _quoted(here, [each.attname for each in fields])
    values = [each.get_db_prep_save(getattr(attempt, each.attname), connection) for each in fields]
    table, marks = tables.quoted(connection, "attempt"), ", ".join(["%s"] * len(fields))
    what = f"VALUES ({marks})"
    if is_first:
        known = known_to_record(here)
        what = f"SELECT {marks} FROM (SELECT 1 AS one) AS own WHERE NOT EXISTS ({known})"
        values += [attempt.routine] * len(tables.OF_ROUTINES)
    condition, row = _own_row(attempt)
    return (
        (f"INSERT INTO {table} ({', '.join(columns)}) {what}", values),
        (f"SELECT id FROM {table} WHERE {condition}", row),
    )


def known_to_record(here: Database) -> str:
    """Return SQL that answers a row if anything is recorded of a routine.

    Its name is a parameter for each of the tables.
    """
    connection = here.connection
    quoted = [tables.quoted(connection, model) for model in tables.OF_ROUTINES]
    return " UNION ALL ".join(f"SELECT 1 FROM {table} WHERE routine = %s" for table in quoted)


def move_anchor(attempt: Attempt) -> Statement:
    """Return the statement that moves the anchor to the last attempt, while that runs.

    The lock of the row keeps a process that was frozen here from undoing its successor's move.
    """
    here = _of(attempt)
    unique, changed = ("routine", "version", "scope_key"), ("number", "attempt_id")
    columns = ", ".join((*unique, *changed))
    anchors, attempts = (tables.quoted(here.connection, model) for model in ("anchor", "attempt"))
    later = f"SELECT 1 FROM {attempts} WHERE routine = own.routine AND number > own.number"
    condition, row = _own_row(attempt)
    sql = (
        f"INSERT INTO {anchors} ({columns}) "
        f"SELECT {', '.join(unique)}, number, id FROM {attempts} AS own "
        f"WHERE {condition} AND state = %s AND NOT EXISTS ({later}) "
        f"{here.row_lock} {here.or_update(unique, changed)}"
    )
    return sql, [*row, State.RUNNING]


def lock(attempt: Attempt) -> Statement:
    """Return the statement that locks the row of an attempt that runs, if there is such a row.

    It answers the number of the last wish for the routine, which so costs no question of its own.
    """
    here = _of(attempt)
    rows, wishes = (tables.quoted(here.connection, model) for model in ("attempt", "wish"))
    last = f"(SELECT number FROM {wishes} WHERE routine = %s ORDER BY number DESC LIMIT 1)"
    sql = f"SELECT {last} FROM {rows} WHERE id = %s AND state = %s {here.row_lock}"
    return sql, [attempt.routine, attempt.pk, State.RUNNING]


def move_cursor(attempt: Attempt, before: str, after: str, items: int) -> Statement:
    """Return the statement that moves the cursor of an attempt that runs, from where it is."""
    here = _of(attempt)
    [cursor] = _quoted(here, ["cursor"])
    sql = (
        f"UPDATE {tables.quoted(here.connection, 'attempt')} SET {cursor} = %s, "
        f"processed = processed + %s WHERE id = %s AND state = %s AND {cursor} = %s"
    )
    return sql, [after, items, attempt.pk, State.RUNNING, before]


def complete(attempt: Attempt) -> Statement:
    """Return the statement that inserts the completion of an attempt."""
    table = tables.quoted(_of(attempt).connection, "completion")
    sql = f"INSERT INTO {table} (routine, version, scope_key) VALUES (%s, %s, %s)"
    return sql, [attempt.routine, attempt.version, attempt.scope_key]


def end(attempt: Attempt, state: State, **values: object) -> Statement:
    """Return the statement that ends an attempt that runs, with these values of its columns."""
    if state not in TRANSITIONS[State.RUNNING]:
        raise ValueError(f"No attempt ends as {state}.")
    here = _of(attempt)
    changes = {"state": state, **values}
    columns = ", ".join(f"{column} = %s" for column in _quoted(here, changes))
    compiler = Attempt.objects.using(here.using).query.get_compiler(here.using)
    now, _ = compiler.compile(Now())
    sql = (
        f"UPDATE {tables.quoted(here.connection, 'attempt')} SET {columns}, finished_at = {now} "
        "WHERE id = %s AND state = %s"
    )
    return sql, [*changes.values(), attempt.pk, State.RUNNING]


def _of(attempt: Attempt) -> Database:
    return database(str(attempt._state.db))


def _own_row(attempt: Attempt) -> Statement:
    """Return the condition on the row of an attempt, which knows no id before it is inserted.

    By the key as well: where a first claim inserts nothing, the row is another process's.
    """
    if attempt.pk:
        return "id = %s", [attempt.pk]
    [key] = _quoted(_of(attempt), ["key"])
    condition = f"routine = %s AND number = %s AND {key} = %s"
    return condition, [attempt.routine, attempt.number, attempt.key]


def _quoted(here: Database, columns: Iterable[str]) -> list[str]:
    return [*map(here.connection.ops.quote_name, columns)]
