"""A transaction that is to be undone: a limit for its waits, and the rows that it changed."""

from collections.abc import Mapping

from once.databases.base import Database
from once.databases.tables import ask, execute

#: Limits the waits for locks in this transaction. MySQL has no limit for less than a session.
_LIMITS = {
    "postgresql": "SET LOCAL lock_timeout = '{0}s'",
    "mysql": "SET SESSION lock_wait_timeout = {0}, SESSION innodb_lock_wait_timeout = {0}",
}

#: Rows that this session changed, by table: also those of transactions before.
_CHANGES = {
    "postgresql": """SELECT relid::regclass::text, n_tup_ins + n_tup_upd + n_tup_del
        FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0""",
    "sqlite": "SELECT '', total_changes()",  # which does not tell the tables
}


def limit_locks(here: Database, seconds: int) -> None:
    """Have a statement of the transaction in hand be an error if it waits for a lock for so long.

    Where the limit is the session's, the caller closes the session.
    """
    if statement := _LIMITS.get(here.connection.vendor):
        execute(here.connection, statement.format(seconds))


def changes(here: Database) -> Mapping[str, int] | None:
    """Return how many rows the session changed; ``None`` where the database does not tell.

    By table, or for all tables under an empty name. Rows of earlier transactions may count, too.
    """
    question = _CHANGES.get(here.connection.vendor)
    return None if question is None else dict(ask(here.connection, question))
