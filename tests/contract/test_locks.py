"""Who holds a lock, who is refused, and what the server does with a holder that falls silent."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, DataError, OperationalError, connections, transaction
from django.db.backends.signals import connection_created
from filelock import SoftFileLock
from psycopg.pq import TransactionStatus

from once.databases import database, sqlite
from once.databases.lock import AdvisoryLock
from once.databases.session_lock import SessionLock
from once.databases.sqlite import MemoryLock, SQLiteLock
from once.exceptions import LockLost, OnceError
from once.models import Attempt
from tests.support import beside, receiving, rows, take
from tests.waiting import GRACE, wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

NAME = "shop.seed"


@pytest.fixture(params=["session", "file", "memory"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], AdvisoryLock]:
    """Makes locks of one lock, of each class in turn."""
    locks: dict[str, Callable[[], AdvisoryLock]] = {
        "session": session,
        "file": lambda: SQLiteLock(tmp_path / "db.sqlite3"),
        "memory": lambda: MemoryLock("test"),
    }
    return locks[request.param]


def session(name: str = NAME, liveness: float = 15.0) -> SessionLock:
    lock = database("default").lock(name, liveness)
    assert isinstance(lock, SessionLock)
    return lock


def setting(lock: AdvisoryLock, name: str) -> str:
    value: str = lock.read(lambda: rows("default", f"SELECT current_setting('{name}')"))[0][0]
    return value


def backend(lock: AdvisoryLock) -> int:
    sql = "SELECT CONNECTION_ID()" if is_mysql() else "SELECT pg_backend_pid()"
    pid: int = lock.read(lambda: rows("default", sql))[0][0]
    return pid


def is_alive(pid: int) -> bool:
    return pid in sessions()


def sessions() -> list[int]:
    """The sessions in this database, by the number that the server gave each."""
    sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    if is_mysql():
        sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"
    return [session for (session,) in rows("default", sql)]


def is_mysql() -> bool:
    return connections["default"].vendor == "mysql"


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "once lock" in thread.name]


def test_second_lock_is_refused_until_the_first_is_released(
    new: Callable[[], AdvisoryLock],
) -> None:
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        first.release()
        assert second.acquire()
        first.release()
        with new() as third:
            assert not third.acquire()


def test_lock_excludes_across_threads(new: Callable[[], AdvisoryLock]) -> None:
    with new() as first:
        assert first.acquire()
        with new() as second, beside(second.acquire) as answer:
            assert answer.result(30) is False


def told_of_holder(lock: AdvisoryLock) -> str:
    """What tells this process to people, where it holds a lock of that kind."""
    is_named_lock = isinstance(lock, SessionLock) and is_mysql()
    return "(session " if is_named_lock else f"(pid {os.getpid()})"


def test_lock_that_is_refused_names_the_holder(new: Callable[[], AdvisoryLock]) -> None:
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        assert second.find_holder()
        if isinstance(second, MemoryLock):
            assert second.holder == "another thread"
        else:
            assert told_of_holder(second) in second.holder


def test_lock_is_freed_by_what_ends_its_context(new: Callable[[], AdvisoryLock]) -> None:
    def fail() -> None:
        with new() as lock:
            assert lock.acquire()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with new() as other:
        assert other.acquire()


def test_release_of_what_is_not_held_is_harmless(new: Callable[[], AdvisoryLock]) -> None:
    new().release()
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        second.release()
        second.release()
        with new() as third:
            assert not third.acquire()


def test_holder_may_read_ping_check_and_yield(new: Callable[[], AdvisoryLock]) -> None:
    with new() as lock:
        assert lock.acquire()
        lock.ping()
        lock.check()
        lock.keep(30.0)
        with lock.yielding():
            pass
        assert lock.read(lambda: 7) == 7


# PostgreSQL


def test_names_do_not_exclude_each_other() -> None:
    with session("a") as first, session("b") as second:
        assert first.acquire()
        assert second.acquire()


@pytest.mark.postgresql
def test_key_of_a_lock_is_that_of_every_release() -> None:
    """Because two releases of this package run side by side in a rolling deploy."""
    key = 2840247509743053818  # eight bytes of SHA-256 of "once:public:shop.seed"
    with transaction.atomic(), session() as lock:
        rows("default", "SELECT pg_advisory_xact_lock(%s)", [key])
        assert not lock.acquire()


@pytest.mark.postgresql
def test_schemas_do_not_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows("default", "CREATE SCHEMA tenant")
    try:
        with session() as first, session() as second:
            assert first.acquire()
            options = {**connections["default"].settings_dict["OPTIONS"]}
            options["options"] = "-c search_path=tenant"
            monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)
            assert second.acquire()
            with session() as third:
                assert not third.acquire()
    finally:
        rows("default", "DROP SCHEMA tenant")


def test_holder_is_named_to_who_does_not_want_the_lock() -> None:
    here = database("default")
    assert here.holder(NAME) is None
    with session() as lock:
        assert lock.acquire()
        holder = here.holder(NAME)
        assert holder is not None
        assert f" {told_of_holder(lock)}" in holder
    assert here.holder(NAME) is None


def test_held_are_those_that_somebody_holds(using: str) -> None:
    here = database(using)
    names = ["shop.seed", "shop.other", "call:prices-2026"]
    assert here.locked(names) == {}
    with here.lock(NAME, 15.0) as lock:
        take(lock)
        # On SQLite one lock locks all.
        assert here.locked(names) == dict.fromkeys([NAME] if here.is_server else names, True)
    assert here.locked(names) == {}


def test_lock_opens_one_connection_of_its_own() -> None:
    opened: list[str] = []

    def note(connection: Any, **kwargs: Any) -> None:
        opened.append(threading.current_thread().name)

    with receiving(connection_created, note), session() as lock:
        assert lock.acquire()
        lock.ping()
    assert opened == ["once lock of shop.seed"]


@pytest.mark.postgresql
def test_lock_is_a_read_committed_transaction_that_only_silence_ends() -> None:
    with session(liveness=7.0) as lock:
        assert lock.acquire()
        assert setting(lock, "transaction_isolation") == "read committed"
        assert setting(lock, "idle_in_transaction_session_timeout") == "7s"
        assert setting(lock, "statement_timeout") == "0"
        assert (
            setting(lock, "lock_timeout") == "250ms"
        )  # of a reading, and the timeout goes with it
        lock.keep(30.0)
        assert setting(lock, "idle_in_transaction_session_timeout") == "30s"
        assert lock.liveness == 30.0


@pytest.mark.parametrize("refused", [False, True], ids=["held", "refused"])
def test_no_thread_and_no_session_remains(refused: bool) -> None:
    with session() as first, session() as second:
        assert first.acquire()
        pid = backend(first)
        if refused:
            assert not second.acquire()
            assert second.standby.has_place
            assert len(threads()) == 2
        assert is_alive(pid)
    assert threads() == []
    wait_until(lambda: not is_alive(pid))
    wait_until(lambda: len(sessions()) == 1, what="the sessions of the locks to end")


@pytest.mark.postgresql
def test_session_is_given_back_without_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler closes the server's connection of a client that leaves in a transaction."""
    left: list[TransactionStatus] = []
    with session() as lock:
        assert lock.acquire()
        assert lock._session is not None
        wrapper: Any = lock._session._connection
        close = wrapper.close

        def note_and_close() -> None:
            left.append(wrapper.connection.info.transaction_status)
            close()

        monkeypatch.setattr(wrapper, "close", note_and_close)
    assert left == [TransactionStatus.IDLE]


@pytest.mark.parametrize("method", ["ping", "read", "keep"])
def test_lock_that_is_not_held_proves_nothing(method: str) -> None:
    arguments: dict[str, list[Any]] = {"read": [lambda: 1], "keep": [5.0]}
    lock = session()
    with pytest.raises(LockLost, match=r"shop\.seed is not owned"):
        getattr(lock, method)(*arguments.get(method, []))
    with lock:
        assert lock.acquire()
    with pytest.raises(LockLost, match=r"shop\.seed is not owned"):
        getattr(lock, method)(*arguments.get(method, []))


def test_lock_that_cannot_connect_raises_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("HOST", "127.0.0.1"), ("PORT", "1")):
        monkeypatch.setitem(connections.settings["default"], name, value)
    with session() as lock, pytest.raises(Exception, match=r"refused|Can't connect"):
        lock.acquire()
    assert threads() == []


@pytest.fixture
def frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[SessionLock, threading.Event]]:
    """A lock that stops to ping, as if its process was frozen, and what thaws it."""
    thaw = threading.Event()
    lock = session(liveness=2.0)
    beat = lock.heartbeat

    def freeze() -> None:
        assert thaw.wait(30)
        beat()

    monkeypatch.setattr(lock, "heartbeat", freeze)
    with lock:
        assert lock.acquire()
        yield lock, thaw
        thaw.set()


@pytest.mark.postgresql
def test_server_evicts_a_holder_that_stops_to_ping(
    frozen: tuple[SessionLock, threading.Event],
) -> None:
    lock, thaw = frozen
    lock.check()
    assert lock._session is not None
    last_sign = lock._session.answered

    def takes_over() -> bool:
        with session() as successor:
            return successor.acquire()

    wait_until(takes_over)
    assert time.monotonic() - last_sign > 2.0
    with pytest.raises(LockLost, match="had no answer from its server for"):
        lock.check()
    thaw.set()
    with pytest.raises(LockLost, match="was lost"):
        lock.ping()
    with pytest.raises(LockLost, match="was lost"):
        lock.check()


@pytest.mark.postgresql
def test_silent_holder_tells_losers_when_it_will_be_evicted(
    frozen: tuple[SessionLock, threading.Event],
) -> None:
    lock, _ = frozen
    assert lock._session is not None
    last_sign = lock._session.answered
    seen: list[float | None] = []

    def loses() -> bool:
        with session(liveness=2.0) as loser:
            if loser.acquire():
                return False
            loser.find_holder()
            seen.append(loser.freed_in)
            return True

    assert loses()
    if time.monotonic() - last_sign < 1.0:  # else the machine took so long
        assert seen == [None]  # it may still be alive
    wait_until(lambda: not loses())
    announced = [seconds for seconds in seen if seconds is not None]
    assert announced == sorted(announced, reverse=True)
    assert 0.0 < announced[0] <= 1.0


@pytest.mark.postgresql
def test_holder_that_pings_outlives_its_liveness_timeout() -> None:
    with session(liveness=1.0) as lock:
        assert lock.acquire()
        assert lock._session is not None
        held = lock._session
        began = held.answered
        wait_until(lambda: held.answered > began + 2.0)
        lock.check()
        with session() as other:
            assert not other.acquire()


@pytest.mark.postgresql
def test_sign_of_life_takes_no_snapshot() -> None:
    """CREATE INDEX CONCURRENTLY in the holder would wait for the end of the lock's transaction."""
    with transaction.atomic():
        session().show_life()
        # The server refuses this in a transaction that has had a snapshot.
        rows("default", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")


@pytest.mark.postgresql
def test_ping_after_the_end_of_the_session_says_lost() -> None:
    with session() as lock:
        assert lock.acquire()
        ended = rows(
            "default",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'once %%' AND datname = current_database()",
        )
        assert ended == [(True,)]
        lock.check()  # asks nobody
        with pytest.raises(LockLost, match=r"lock of shop\.seed was lost: .*terminat"):
            lock.ping()
        for ask in (lock.check, lock.ping, lambda: lock.keep(5.0)):
            with pytest.raises(LockLost, match="was lost"):
                ask()
        with session() as successor:
            assert successor.acquire()


@pytest.mark.postgresql
def test_query_that_fails_in_the_session_loses_the_lock_by_its_own_error() -> None:
    with session() as lock:
        assert lock.acquire()
        with pytest.raises(DataError, match="division by zero"):
            lock.read(lambda: rows("default", "SELECT 1 / 0"))
        with session() as successor:
            wait_until(successor.acquire)


def test_lock_gives_itself_up_while_its_caller_waits_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SessionLock, "patience", (0.1, 0.2))
    with session() as lock:
        assert lock.acquire()
        with lock.yielding(), session() as other:
            assert wait_until(other.acquire) > 0.05
        with pytest.raises(LockLost, match="gave itself up"):
            lock.ping()


def test_lock_whose_caller_waited_shortly_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionLock, "patience", (0.2, 0.2))
    with session(liveness=1.2) as lock:
        assert lock.acquire()
        with lock.yielding():
            pass
        assert lock._session is not None
        held = lock._session
        began = held.answered
        wait_until(lambda: held.answered > began + 0.3)  # by pings
        lock.check()


@pytest.mark.postgresql
def test_reading_leaves_no_lock_on_a_table_and_keeps_that_of_the_lock() -> None:
    held = (
        "SELECT locktype, relation::regclass::text FROM pg_locks WHERE pid = %s "
        "AND locktype IN ('relation', 'advisory') AND granted"
    )
    with session() as lock, session() as standby, session() as other:
        assert lock.acquire()
        assert not standby.acquire()
        assert lock.read(lambda: Attempt.objects.count()) == 0
        assert rows("default", held, [backend(lock)]) == [("advisory", None)]
        assert rows("default", held, [backend(standby)]) == [("advisory", None)]
        assert not other.acquire()


@pytest.mark.postgresql
def test_reading_that_asks_for_whole_transactions_keeps_the_lock() -> None:
    """A function need not know whose session it reads in: a COMMIT there would free the lock."""

    def read() -> list[tuple[Any, ...]]:
        with database("default").statements():
            return rows("default", "SELECT count(*) FROM once_attempt")

    with session() as first, session() as second:
        take(first)
        assert first.read(read) == [(0,)]
        first.ping()
        assert not second.acquire()


@pytest.mark.postgresql
def test_reading_behind_a_table_that_is_being_changed_gives_up_soon() -> None:
    with session() as lock:
        assert lock.acquire()
        with transaction.atomic():
            rows("default", "LOCK TABLE once_attempt IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            with pytest.raises(OperationalError, match="lock timeout"):
                lock.read(lambda: Attempt.objects.count())
            assert time.monotonic() - began < GRACE


# Standbys


def test_first_who_is_refused_is_the_standby_and_the_only_one() -> None:
    with session() as holder, session() as standby, session() as other:
        assert holder.acquire()
        assert not holder.standby.has_place
        assert not standby.acquire()
        assert standby.standby.has_place
        assert not other.acquire()
        # The place is free for a moment, each time that its standby asks anew.
        wait_until(lambda: standby.standby.has_place is not other.standby.has_place)
        if other.standby.has_place:
            standby, other = other, standby
        wait_until(lambda: not other.is_worth_trying())
        standby.release()
        assert other.is_worth_trying()  # to be the standby
        assert not other.acquire()
        assert other.standby.has_place
        holder.release()
        other.wait(60)
        assert other.is_worth_trying()


def test_standby_that_steps_back_keeps_what_it_got_meanwhile() -> None:
    """Between a refusal and the pause after it: no longer its standby, it would sleep for long."""
    with session() as holder, session() as standby, session() as other:
        assert holder.acquire()
        assert not standby.acquire()
        holder.release()
        wait_until(lambda: standby.standby.is_due)  # behind the back of its look
        standby.release_unless_standby()
        assert not other.acquire()
        standby.wait(60)  # it was told
        assert standby.is_worth_trying()
        assert standby.acquire()
        standby.release_unless_standby()
        assert other.acquire()


def test_standby_is_told_once_the_lock_is_free_and_keeps_it_from_others() -> None:
    with session() as holder, session() as standby, session() as other:
        assert holder.acquire()
        assert not standby.acquire()
        standby.wait(0.2)
        assert not standby.is_worth_trying()
        with beside(lambda: standby.wait(60)) as told:
            holder.release()
            told.result(10)
        assert standby.is_worth_trying()
        assert not other.acquire()
        standby.wait(60)  # it need not be told twice
        assert standby.acquire()
        assert not standby.standby.has_place
        assert not other.acquire()
        assert other.standby.has_place
        other.release_unless_standby()
        assert other.standby.has_place  # it has nowhere to go
        standby.release_unless_standby()
        other.wait(60)
        other.release()  # what it had to itself
        assert standby.acquire()


@pytest.mark.postgresql
def test_standby_whose_session_ended_is_one_among_others() -> None:
    with session() as holder, session() as standby, session() as other:
        assert holder.acquire()
        assert not standby.acquire()
        ended = rows(
            "default",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'once standby %%' AND datname = current_database()",
        )
        assert ended == [(True,)]
        assert not other.acquire()
        assert other.standby.has_place
        standby.wait(60)  # it is told that it lost its place
        assert not standby.acquire()
        holder.release()
        other.release()
        assert standby.acquire()


def test_lock_that_switches_keeps_its_session_and_frees_the_name_before() -> None:
    opened: list[str] = []
    here = database("default")

    def note(connection: Any, **kwargs: Any) -> None:
        opened.append(threading.current_thread().name)

    with receiving(connection_created, note), session("first", liveness=7.0) as lock:
        assert lock.acquire()
        lock.keep(30.0)
        lock.switch_to("second")
        assert not lock.is_owned
        assert here.holder("first") is not None
        assert lock.acquire()
        assert here.holder("first") is None
        assert here.holder("second") is not None
        lock.ping()
        if not is_mysql():
            assert setting(lock, "idle_in_transaction_session_timeout") == "7s"
        lock.switch_to("third")
        lock.release()  # it was not needed, and never tried
        assert here.holder("second") is None
    assert [name for name in opened if name != "MainThread"] == ["once lock of first"]
    assert threads() == []


def test_lock_that_switches_after_a_loss_has_a_new_session() -> None:
    with session("first") as lock:
        assert lock.acquire()
        with pytest.raises(DatabaseError):
            lock.read(lambda: rows("default", "SELECT nonsense"))
        with pytest.raises(LockLost):
            lock.ping()
        lock.switch_to("second")
        assert lock.acquire()
        lock.ping()


def test_standby_that_switches_is_no_standby_of_either_name() -> None:
    with session("first") as holder, session("second") as other, session("first") as lock:
        assert holder.acquire()
        assert other.acquire()
        assert not lock.acquire()
        lock.switch_to("second")
        assert lock.holder == "another process"
        assert not lock.standby.has_place
        assert not lock.acquire()
        assert lock.standby.has_place
        with session("first") as next_standby:
            assert not next_standby.acquire()
            assert next_standby.standby.has_place
        holder.release()
        assert not lock.is_worth_trying()
        other.release()
        lock.wait(60)
        assert lock.acquire()


# SQLite


def test_database_in_memory_has_a_lock_in_memory_and_a_file_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(database("sqlite").lock(NAME, 15.0), MemoryLock)
    path = tmp_path / "db.sqlite3"
    on_disk = {**connections.settings["sqlite"], "NAME": str(path)}
    monkeypatch.setitem(connections.settings, "on_disk", on_disk)
    here = database("on_disk")
    with here.lock(NAME, 15.0) as lock, SQLiteLock(path) as other:
        assert here.holder(NAME) is None
        assert lock.acquire()
        assert not other.acquire()
        assert here.holder(NAME) == other.holder
    del connections["on_disk"]


HOLD = """
import sys
from pathlib import Path
from once.databases.sqlite import SQLiteLock
lock = SQLiteLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


def test_file_is_freed_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with SQLiteLock(path) as lock:
            assert not lock.acquire()
            assert f"(pid {holder.pid})" in lock.holder
            holder.kill()
            holder.wait(30)
            assert lock.acquire()


def test_who_waits_for_a_file_is_told_once_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with SQLiteLock(path) as holder, SQLiteLock(path) as waiter:
        assert holder.acquire()
        assert not waiter.acquire()
        waiter.wait(0.2)
        with beside(lambda: waiter.wait(60)) as told:
            holder.release()
            told.result(10)
        assert holder.acquire()  # being told is not having it
        holder.wait(0.1)
        assert not waiter.acquire()


def test_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Because a link could point to a file of another user's, which the lock would empty."""
    path, precious = tmp_path / "db.sqlite3", tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "db.sqlite3.once.lock").symlink_to(precious)
    with pytest.raises(OnceError, match="cannot be used"):
        SQLiteLock(path).acquire()
    assert precious.read_text() == "kept"


def test_file_is_owned_against_another_process(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with SQLiteLock(path) as lock:
        assert lock.acquire()
        command = [sys.executable, "-c", HOLD, str(path)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert done.stdout == "False\n"


def test_file_lock_leaves_the_database_usable(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with SQLiteLock(path) as lock:
        assert lock.acquire()
        with closing(sqlite3.connect(path, timeout=0)) as other, other:
            other.execute("CREATE TABLE written (x)")
        with closing(sqlite3.connect(path, timeout=0)) as other:
            assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("written",)]


def test_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FileLock", SoftFileLock)
    lock = SQLiteLock(tmp_path / "db.sqlite3")
    with pytest.raises(OnceError, match="has no file locks"):
        lock.acquire()
    lock.release()


def test_memory_locks_of_two_databases_do_not_exclude_each_other() -> None:
    with MemoryLock("one") as first, MemoryLock("two") as second:
        assert first.acquire()
        assert second.acquire()


@pytest.mark.postgresql
def test_lock_of_another_schema_is_told_where_a_look_came_first() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("CREATE SCHEMA elsewhere")
        cursor.execute("CREATE TABLE elsewhere.once_completion (id int)")
        cursor.execute("SET search_path = elsewhere, public")
        try:
            with session() as lock:
                assert lock.is_worth_trying()
                assert lock.acquire()
                with pytest.raises(OnceError, match="belongs to another schema"):
                    lock.refuse_other_place()
        finally:
            cursor.execute("RESET search_path")
            cursor.execute("DROP SCHEMA elsewhere CASCADE")


@pytest.mark.postgresql
def test_long_statement_of_the_project_is_no_obstacle_of_the_work() -> None:
    long = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid() AND "
        "state = 'active' AND query_start < clock_timestamp() - interval '500ms'"
    )
    with beside(lambda: rows("default", "SELECT pg_sleep(30) AS nonce, '\"concerts_once'")) as work:
        wait_until(lambda: rows("default", long, ["%AS nonce%"]))
        obstacle = session().obstacle()
        rows("default", f"SELECT pg_cancel_backend(pid) FROM ({long}) AS found", ["%AS nonce%"])
        assert isinstance(work.exception(30), OperationalError)
    assert obstacle.startswith("See what the server waits for")
