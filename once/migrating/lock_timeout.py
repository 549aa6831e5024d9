"""Schema statements of migrations wait for their locks for a short time only.

Behind a statement that waits for a lock on a table, all later queries of that table wait as well.
Therefore it gives up soon, which lets them pass, and is tried again.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ClassVar

from django.db import Error
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.migration import Migration

from once import conf
from once.databases import Database
from once.databases.base import Context, Execute
from once.engine.backoff import Wait
from once.exceptions import LockLost, NotDone

#: The part of its limit after which a statement that still waits has the session in its way named.
_LATE = 0.8
#: Seconds for that answer.
_ANSWER = 2.0
#: Beginnings of statements that leave nothing behind.
_READS = ("SELECT", "SHOW", "SET", "PRAGMA")


class SchemaStatements:
    """The schema statements of one migration, each with a limit for its waits for locks.

    In a transaction, a statement that gives up has the whole migration tried again. Without one it
    is tried again alone, because it had no effect, and those before it stay.
    """

    def __init__(
        self, here: Database, patient: Wait, migration: Migration, *, is_atomic: bool
    ) -> None:
        self.here = here
        self.migration = migration
        #: True if a statement had effects which no rollback undoes.
        self.is_begun = False
        #: The error of the statement that gave up, in a transaction.
        self.gave_up: Error | None = None
        self._patient = patient
        self._is_atomic = is_atomic
        self._limit = conf.migrate_lock_timeout()
        self._blockers = ""
        self._is_executing = False

    @contextmanager
    def limited(self) -> Iterator[None]:
        """A context in which the schema editors of the connection have the limit."""
        connection = self.here.connection
        editor: Any = connection.SchemaEditorClass
        if self._limit and self.here.is_server:
            limited = {"statements": self}
            connection.SchemaEditorClass = type(editor.__name__, (editor, _Limited), limited)
        try:
            with connection.execute_wrapper(self._note):
                yield
        finally:
            connection.SchemaEditorClass = editor

    def _note(self, execute: Execute, sql: str, params: Any, many: bool, context: Context) -> Any:
        """Take note of a statement that is none of a schema editor, such as of RunPython."""
        answer = execute(sql, params, many, context)
        if not (self._is_executing or sql.lstrip().startswith(_READS)):
            self._begin()
        return answer

    def _begin(self) -> None:
        # Because a transaction in a migration that is not atomic may be committed, one counts.
        self.is_begun = not self._is_atomic

    def execute(self, statement: Callable[[], None]) -> None:
        """Have a statement of a schema editor executed, until it gets its locks."""
        self._is_executing = True
        try:
            while not self._is_executed(statement):
                pass
        finally:
            self._is_executing = False
        self._begin()

    def _is_executed(self, statement: Callable[[], None]) -> bool:
        """Return False where a statement gave up, and may get its locks after a pause."""
        here = self.here
        try:
            with here.limiting_locks(self._seconds) as limit, self._watched(*limit):
                statement()
        except Error as error:
            if here.connection.in_atomic_block:
                self.gave_up = error if here.is_in_the_way(error) else None
                raise
            if here.wants_no_transaction(error):
                # It has no limit, because interrupted it may leave an invalid index, and queries
                # do not wait behind it (PostgreSQL manual, "CREATE INDEX").
                self.is_begun = True
                statement()
            elif here.is_in_the_way(error):
                self.pause(error, has_transaction=False)
                return False
            else:
                raise
        return True

    @property
    def _seconds(self) -> float:
        timeout = self._patient.timeout
        if timeout is None or self.is_begun:
            return self._limit
        return min(self._limit, max(0.5, timeout))

    def pause(self, error: Exception, *, has_transaction: bool = True) -> None:
        """Let the application pass, after a statement that gave up.

        Raises:
            TimedOut: the deadline has passed, and nothing of the migration was applied.
            NotDone: the call does not wait, and nothing of the migration was applied.

        """
        locked = f"that {self._blockers}" if self._blockers else self.here.obstacle(error)
        reason = f"migration {self.migration} waits for a lock: {locked}"
        if self.is_begun:
            reason += ". A part of it is applied and cannot be undone, so that it goes on"
        elif not self._patient.waits:
            raise NotDone(f"Not applied: {reason}.")
        self._patient.pause(
            reason,
            # For longer than the queries have waited behind it.
            least=2 * self._limit,
            gives_up=not self.is_begun,
            kept=None if has_transaction else self.here.connection,
        )
        if not self.is_begun:  # because what is begun goes on, and a successor ends the session
            self._patient.lock.ping()

    @contextmanager
    def _watched(self, seconds: float, session: int | None) -> Iterator[None]:
        """Ask by the lock's session, while the statement waits, for the sessions in its way."""
        self._blockers = ""
        if not seconds or session is None:
            yield
            return
        # In this thread's context, because a back end may keep there what the lock is of.
        look = copy_context().run
        timer = threading.Timer(_LATE * seconds, look, [self._look, session])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join(_ANSWER)  # which is for the answer, if it asks already

    def _look(self, session: int) -> None:
        with suppress(LockLost, Error):  # which the next question to the lock says
            self._blockers = self._patient.lock.blockers(session)


class _Limited(BaseDatabaseSchemaEditor):
    """The last schema editor to be asked of a class and its bases: it gets single statements."""

    statements: ClassVar[SchemaStatements]

    def execute(self, sql: Any, params: Any = ()) -> None:
        statement = partial(super().execute, sql, params)
        if self.collect_sql:
            statement()
        else:
            self.statements.execute(statement)
