"""Probes of locks and work sessions, as the protocol needs them.

They know no routine and no record. Each question to a server is asked as another process would.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from time import monotonic

from django.db import Error

from once import conf
from once.databases import tables
from once.databases.lock import AdvisoryLock
from once.doctor.deployment import DEADLINE, PATIENCE, Deployment, Finding
from once.exceptions import CannotFence, LockLost
from once.text import one_line

#: Seconds of silence after which a lock is to be evicted here, and how late that may be.
_LIVENESS = 2.0
_GRACE = 1.0
#: Other sessions that must be refused the lock: a balancer spreads them over its servers.
_RIVALS = 5

#: A statement that takes so long, by vendor.
_REST = {"mysql": "SELECT SLEEP(%s)", "postgresql": "SELECT pg_sleep(%s)"}

#: The server and database that a session is on, by vendor.
_PLACE = {
    "mysql": "SELECT CONCAT(DATABASE(), ' on ', @@hostname, ':', @@port)",
    "postgresql": """SELECT format('database %s of the server on port %s that started at %s',
        current_database(), current_setting('port'), pg_postmaster_start_time())""",
    "sqlite": "SELECT file FROM pragma_database_list WHERE name = 'main'",
}

_LIMITS = (
    "In PgBouncer, set query_timeout and transaction_timeout to 0, and idle_transaction_timeout "
    "above ONCE_LIVENESS_TIMEOUT. Elsewhere, see which limit ends transactions or statements."
)


def pool(deployment: Deployment) -> Iterator[Finding]:
    """See that the work has a connection while the lock keeps one."""
    if deployment.database.is_server:
        well = "Lock and work have a connection each, at the same time."
        yield too_few(deployment, "pool", locks=1) or deployment.ok("pool", well)


def too_few(deployment: Deployment, name: str, *, locks: int) -> Finding | None:
    """Return a fault unless so many locks, and the work, have a connection each at once."""
    beside = "A lock had a connection, and the work beside it"
    if locks > 1:
        beside = f"{locks} locks and the work need a connection each at the same time, and the last"
    message = f"{beside} had none within {PATIENCE:.0f} s"
    with ExitStack() as taken:
        for number in range(locks):
            lock = deployment.database.lock(f"{deployment.name}.{number}", PATIENCE)
            taken.enter_context(lock)
            lock.acquire()
        work = deployment.beside(lambda: _begin_work(deployment))
        with suppress(TimeoutError):
            work.result(PATIENCE)
            lock.ping()
            return None
        if not lock.is_pooled:
            hint = "See that the server takes connections, and that a pool of ENGINE lends "
            return deployment.fault(name, f"{message}.", f"{hint}{locks + 1} at once.")
    return deployment.fault(
        name,
        f"{message}: a pooler lends too few, or all are in use.",
        f"Have the pooler lend at least {locks + 1} to this database and user, better 5 "
        "(default_pool_size, or pool_size, in PgBouncer). If routines run now, run this again when "
        "they are done.",
    )


def _begin_work(deployment: Deployment) -> None:
    with deployment.database.work():
        deployment.database.mark_backend(deployment.name)


def exclusion(deployment: Deployment) -> Iterator[Finding]:
    """See that the lock keeps other sessions out, and lets them in after its release."""
    with deployment.lock() as lock:
        if not lock.acquire():  # where there is one lock for all routines
            lock.find_holder()
            message = f"The lock, which {lock.holder} holds, is refused to other sessions."
            yield deployment.ok("exclusion", message)
            return
        for _ in range(_RIVALS):
            with deployment.lock() as rival:
                if rival.acquire():
                    yield _two_holders(deployment, lock, rival)
                    return
    with deployment.lock() as successor:
        if not successor.acquire() and deployment.database.is_server:
            successor.find_holder()
            yield deployment.fault(
                "exclusion",
                f"The lock was released, and {successor.holder} still holds it.",
                "Have the pooler reset sessions (server_reset_query in PgBouncer).",
            )
            return
    message = f"{_RIVALS} sessions were refused a lock that another session had; then one got it."
    yield deployment.ok("exclusion", message)


def _two_holders(deployment: Deployment, *locks: AdvisoryLock) -> Finding:
    def place() -> str:
        connection = deployment.database.connection
        [(where,)] = tables.ask(connection, _PLACE[connection.vendor])
        return str(where)

    first, second = [lock.read(place) for lock in locks]
    hint = "See what stands before the server: each transaction must stay on one connection."
    where = f"both on {first}"
    if first != second:
        where = f"one on {first}, the other on {second}"
        hint = (
            f"DATABASES[{deployment.database.using!r}] must always lead to one and the same "
            "database: name the primary there, and no balancer over several servers."
        )
    message = f"Two sessions had the same lock at the same time, {where}."
    return deployment.fault("exclusion", message, hint)


def eviction(deployment: Deployment) -> Iterator[Finding]:
    """See that the server evicts a holder that falls silent."""
    if not deployment.database.is_server:
        message = (
            "A process that dies frees the lock. One that is frozen keeps it, as it keeps the "
            "write lock: no server evicts it."
        )
        yield deployment.ok("eviction", message)
        return
    begun = monotonic()
    with deployment.lock(_LIVENESS) as lock:
        lock.acquire()
        lock.stop_heartbeat()
        since = monotonic()
        seconds = deployment.ask(lambda: _until_free(deployment, since))
        lasted = monotonic() - begun
    if seconds is None:
        yield deployment.fault(
            "eviction",
            f"A lock that was silent for {_LIVENESS:.0f} s was not evicted within "
            f"{_LIVENESS + _GRACE:.0f} s: a frozen process would keep the lock.",
            "See whether something before the server answers in its place, or the server is "
            "overloaded.",
        )
    elif lasted < 0.9 * _LIVENESS:
        message = (
            f"A lock lasted for {lasted:.1f} s, though it may be silent for {_LIVENESS:.0f} s."
        )
        yield deployment.fault("eviction", message, _LIMITS)
    else:
        message = f"A lock that fell silent was evicted after {seconds:.1f} s."
        yield deployment.ok("eviction", message)


def _until_free(deployment: Deployment, since: float) -> float | None:
    """Return the seconds until the lock was free, or ``None`` if it took too long."""
    while True:
        is_late = monotonic() - since > _LIVENESS + _GRACE
        if deployment.database.holder(deployment.name) is None:
            return monotonic() - since
        if is_late:
            return None
        time.sleep(0.1)


def endurance(deployment: Deployment) -> Iterator[Finding]:
    """See that a lock lives from one sign of life to the next, and a statement for as long."""
    if not deployment.database.is_server:
        return
    seconds = conf.liveness_timeout() / 3
    if seconds > DEADLINE:  # said beforehand
        message = f"The proof of endurance takes {seconds:.0f} s, a third of ONCE_LIVENESS_TIMEOUT."
        yield deployment.ok("duration", message)
    with deployment.lock(conf.liveness_timeout()) as lock:
        lock.acquire()
        work = deployment.beside(lambda: _rest(deployment, seconds))
        time.sleep(seconds)
        yield _silence(deployment, lock, seconds)
        yield _statement(deployment, work, seconds)


def _silence(deployment: Deployment, lock: AdvisoryLock, seconds: float) -> Finding:
    try:
        lock.ping()
    except LockLost as error:
        message = (
            f"A lock was lost within {seconds:.1f} s, before its first sign of life: none would "
            f"last, and no run could finish. ({one_line(error)})"
        )
        return deployment.fault("endurance", message, _LIMITS)
    message = f"A lock lasted for {seconds:.1f} s, from one sign of life to the next."
    return deployment.ok("endurance", message)


def _rest(deployment: Deployment, seconds: float) -> None:
    with deployment.database.work():
        # By a name of its own, because a pooler may leave the session to the server.
        deployment.database.mark_backend(f"{deployment.name}.statement")
        deployment.database.limit_statements(0)  # a limit of the server's is no pooler's
        connection = deployment.database.connection
        tables.ask(connection, _REST[connection.vendor], [seconds])


def _statement(deployment: Deployment, work: "Future[None]", seconds: float) -> Finding:
    error = work.exception(DEADLINE)
    if error is None:
        message = f"A statement of {seconds:.1f} s came to its end. No longer one was tried."
        return deployment.ok("statement", message)
    return deployment.fault(
        "statement",
        f"A statement of {seconds:.1f} s did not come to its end, nor would a body with such a "
        f"statement: {one_line(error)}",
        _LIMITS,
    )


def fencing(deployment: Deployment) -> Iterator[Finding]:
    """See that a successor could end the session in which its predecessor works."""
    database = deployment.database
    if not database.is_server:
        return
    is_marked, is_over = threading.Event(), threading.Event()

    def zombie() -> None:
        try:
            with database.work():
                database.mark_backend(deployment.name)
                is_marked.set()
                is_over.wait(DEADLINE)
                with database.connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
        finally:
            is_marked.set()  # or never to be

    work = deployment.beside(zombie)
    problem: BaseException | None = None
    try:
        is_marked.wait(DEADLINE)
        ended = deployment.ask(lambda: database.terminate_backend(deployment.name))
    except CannotFence as error:
        yield deployment.fault("fencing", str(error).replace("A predecessor's", "A session's"))
        return
    finally:
        is_over.set()
        with suppress(TimeoutError):
            problem = work.exception(DEADLINE)
    if not isinstance(problem, Error):
        how = "was found by another, and not ended" if ended else "was not found by another"
        hint = "See what stands before the server, and which rights this user has there."
        yield deployment.fault("fencing", f"A session that works {how}.", hint)
    elif ended:
        yield deployment.ok("fencing", "A session that works was found and ended by another.")
    else:
        raise problem  # because no session was told to end, this is another fault
