"""Databases that are reached over a network, and the connections that runs open to them."""

import math
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from once import conf
from once.databases import tables, timeouts
from once.databases.base import PATIENCE, Database
from once.databases.session_lock import SessionLock
from once.exceptions import CannotFence

#: Of MySQL's client library: it cannot connect (manual, "Client Error Message Reference").
_CANNOT_CONNECT = 2003

#: Wrappers of connections that runs opened for themselves, and seconds in which each has to answer.
_own: WeakKeyDictionary[BaseDatabaseWrapper, float] = WeakKeyDictionary()


class ServerDatabase(Database):
    """A database that is reached over a network."""

    #: The kind of lock that its server has.
    lock_class: ClassVar[type[SessionLock]]
    denied_errors: ClassVar[Collection[object]]

    def lock(self, name: str, liveness: float) -> SessionLock:
        return self.lock_class(self.using, name, liveness)

    def holder(self, name: str) -> str | None:
        with self.lock(name, 0.0) as lock:
            return lock.holder if lock.find_holder() else None

    @property
    def role(self) -> str:
        """The user whose privileges count, for people to read."""
        return self.connection.settings_dict["USER"] or "this user"

    def is_denied(self, error: BaseException) -> bool:
        """True if the user lacks a privilege."""
        return self.code(error) in self.denied_errors

    def advice(self, error: BaseException) -> str:
        return tables.grants(self.role) if self.is_denied(error) else super().advice(error)

    def cannot_fence(self, role: str, grant: str) -> CannotFence:
        """Return the error of a user that may not end a predecessor's session."""
        return CannotFence(
            f"A predecessor's transaction is still open and {role} may not end it: "
            f"GRANT {grant} TO {role}; or end that session yourself."
        )

    def copy(self) -> BaseDatabaseWrapper:
        # Not from a pool, because its threads and sessions would cross a fork. With a limit,
        # because TCP alone would wait long for a silent network.
        own = apart(self.connection, max(2, min(10, round(conf.startup_timeout()))))
        _own[own] = PATIENCE
        initialize = own.init_connection_state

        def initialize_in_time() -> None:
            # Because Django's first question may wait behind a pooler for a server connection.
            with timeouts.expected(own, _own[own]):
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

    @contextmanager
    def answering(self, seconds: float = PATIENCE) -> Iterator[None]:
        own = self.connection
        if own not in _own:
            yield
            return
        options = own.settings_dict["OPTIONS"]
        before, limit = _own[own], options["connect_timeout"]
        # Of the drivers' timeouts, 0 or less is none, and 2 is the least.
        most = max(2, math.ceil(seconds))
        _own[own] = seconds
        options["connect_timeout"] = min(int(limit), most) if int(limit) > 0 else most
        try:
            with own.execute_wrapper(partial(timeouts.within, seconds=seconds)):
                yield
        finally:
            _own[own], options["connect_timeout"] = before, limit

    def session(self, *, is_new: bool = False) -> AbstractContextManager[None]:
        self.refuse_transaction()
        connection = self.connection
        if is_new or connection.connection is None:
            return self._apart()
        return _fit_for_a_run(connection)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        before = self.connection
        connections[self.using] = own = self.copy()
        try:
            yield
        finally:
            own.close()
            connections[self.using] = before
            timeouts.rest()


def mark_name(name: str) -> str:
    """Return the name by which a session is marked that works on a name."""
    return f"work {name}"  # no lock's name holds a space


def apart(connection: BaseDatabaseWrapper, connect_timeout: int) -> BaseDatabaseWrapper:
    """Return a connection like another, not yet open; the timeout is of 2 seconds at least."""
    copy: Any = connection.copy()
    if (tenant := getattr(connection, "tenant", None)) is not None:
        copy.set_tenant(tenant)  # of django-tenants: a connection sets its search_path by that
    copy.settings_dict["OPTIONS"].pop("pool", None)
    copy.settings_dict["OPTIONS"].setdefault("connect_timeout", connect_timeout)
    _connect_for_a_run(copy)
    wrapper: BaseDatabaseWrapper = copy
    return wrapper


@contextmanager
def _fit_for_a_run(connection: Any) -> Iterator[None]:
    """Have a project's open connection be as a run's own one is, and afterwards as it was."""
    before = vars(connection).get("connect")  # of a run around this run, if any
    _connect_for_a_run(connection)
    options = timeouts.keep_alive(connection)
    try:
        yield
    finally:
        timeouts.restore(connection, options)
        del connection.connect
        if before is not None:
            connection.connect = before


def _connect_for_a_run(connection: Any) -> None:
    """Have it notice a network that dies, and turn an error of a foreign pool into the driver's.

    The error of a pool, as of SQLAlchemy, then counts as a database that cannot be reached, which
    may pass.
    """
    connect, driver = connection.connect, connection.Database

    def connect_or_say() -> None:
        try:
            connect()
        except (Error, driver.Error, ImproperlyConfigured, SynchronousOnlyOperation):
            raise
        except Exception as error:
            code = [_CANNOT_CONNECT] if connection.vendor == "mysql" else []
            text = f"No connection was to be had: {type(error).__name__}: {error}"
            raise driver.OperationalError(*code, text) from error
        timeouts.keep_alive(connection)

    connection.connect = connect_or_say
