"""Who holds a guard, who is refused, and what the server does with a holder that falls silent."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.backends.signals import connection_created
from filelock import SoftFileLock
from psycopg.pq import TransactionStatus

from once.databases import database, sqlite
from once.databases.sqlite import FileGuard, MemoryGuard
from once.exceptions import GuardLost, OnceError
from once.guards import Guard, SessionGuard
from tests.database.support import beside, receiving, rows, take
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

NAME = "shop.seed"


@pytest.fixture(params=["session", "file", "memory"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Guard]:
    """Makes guards of one lock, of each class in turn."""
    guards: dict[str, Callable[[], Guard]] = {
        "session": session,
        "file": lambda: FileGuard(tmp_path / "db.sqlite3"),
        "memory": lambda: MemoryGuard("test"),
    }
    return guards[request.param]


def session(name: str = NAME, liveness: float = 15.0) -> SessionGuard:
    guard = database("default").guard(name, liveness)
    assert isinstance(guard, SessionGuard)
    return guard


def setting(guard: Guard, name: str) -> str:
    value: str = guard.read(lambda: rows("default", f"SELECT current_setting('{name}')"))[0][0]
    return value


def backend(guard: Guard) -> int:
    sql = "SELECT CONNECTION_ID()" if is_mysql() else "SELECT pg_backend_pid()"
    pid: int = guard.read(lambda: rows("default", sql))[0][0]
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
    return [thread.name for thread in threading.enumerate() if "once guard" in thread.name]


def test_second_guard_is_refused_until_the_first_is_released(new: Callable[[], Guard]) -> None:
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        first.release()
        assert second.acquire()
        first.release()
        with new() as third:
            assert not third.acquire()


def test_guard_excludes_across_threads(new: Callable[[], Guard]) -> None:
    with new() as first:
        assert first.acquire()
        with new() as second, beside(second.acquire) as answer:
            assert answer.result(30) is False


def told_of_holder(guard: Guard) -> str:
    """What tells this process to people, where it holds a guard of that kind."""
    is_named_lock = isinstance(guard, SessionGuard) and is_mysql()
    return "(session " if is_named_lock else f"(pid {os.getpid()})"


def test_guard_that_is_refused_names_the_holder(new: Callable[[], Guard]) -> None:
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        assert second.find_holder()
        if isinstance(second, MemoryGuard):
            assert second.holder == "another thread"
        else:
            assert told_of_holder(second) in second.holder


def test_guard_is_freed_by_what_ends_its_context(new: Callable[[], Guard]) -> None:
    def fail() -> None:
        with new() as guard:
            assert guard.acquire()
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with new() as other:
        assert other.acquire()


def test_release_of_what_is_not_held_is_harmless(new: Callable[[], Guard]) -> None:
    new().release()
    with new() as first, new() as second:
        assert first.acquire()
        assert not second.acquire()
        second.release()
        second.release()
        with new() as third:
            assert not third.acquire()


def test_holder_may_read_ping_check_and_yield(new: Callable[[], Guard]) -> None:
    with new() as guard:
        assert guard.acquire()
        guard.ping()
        guard.check()
        guard.keep(30.0)
        with guard.yielding():
            pass
        assert guard.read(lambda: 7) == 7


# PostgreSQL


def test_names_do_not_exclude_each_other() -> None:
    with session("a") as first, session("b") as second:
        assert first.acquire()
        assert second.acquire()


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


def test_holder_is_named_to_who_does_not_want_the_guard() -> None:
    here = database("default")
    assert here.holder(NAME) is None
    with session() as guard:
        assert guard.acquire()
        holder = here.holder(NAME)
        assert holder is not None
        assert f" {told_of_holder(guard)}" in holder
    assert here.holder(NAME) is None


def test_held_are_those_that_somebody_holds(using: str) -> None:
    here = database(using)
    names = ["shop.seed", "shop.other", "call:prices-2026"]
    assert here.held(names) == set()
    with here.guard(NAME, 15.0) as guard:
        take(guard)
        # On SQLite one lock guards all.
        assert here.held(names) == ({NAME} if here.is_server else set(names))
    assert here.held(names) == set()


def test_guard_opens_one_connection_of_its_own() -> None:
    opened: list[str] = []

    def note(connection: Any, **kwargs: Any) -> None:
        opened.append(threading.current_thread().name)

    with receiving(connection_created, note), session() as guard:
        assert guard.acquire()
        guard.ping()
    assert opened == ["once guard of shop.seed"]


@pytest.mark.postgresql
def test_guard_is_a_read_committed_transaction_that_only_silence_ends() -> None:
    with session(liveness=7.0) as guard:
        assert guard.acquire()
        assert setting(guard, "transaction_isolation") == "read committed"
        assert setting(guard, "idle_in_transaction_session_timeout") == "7s"
        assert setting(guard, "statement_timeout") == "0"
        assert setting(guard, "lock_timeout") == "0"
        guard.keep(30.0)
        assert setting(guard, "idle_in_transaction_session_timeout") == "30s"
        assert guard.liveness == 30.0


@pytest.mark.parametrize("refused", [False, True], ids=["held", "refused"])
def test_no_thread_and_no_session_remains(refused: bool) -> None:
    with session() as first, session() as second:
        assert first.acquire()
        pid = backend(first)
        if refused:
            assert not second.acquire()
            assert second.is_heir
            assert len(threads()) == 2
        assert is_alive(pid)
    assert threads() == []
    wait_until(lambda: not is_alive(pid))
    wait_until(lambda: len(sessions()) == 1, what="the sessions of the guards to end")


@pytest.mark.postgresql
def test_session_is_given_back_without_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler closes the server's connection of a client that leaves in a transaction."""
    left: list[TransactionStatus] = []
    with session() as guard:
        assert guard.acquire()
        assert guard._session is not None
        wrapper: Any = guard._session._connection
        close = wrapper.close

        def note_and_close() -> None:
            left.append(wrapper.connection.info.transaction_status)
            close()

        monkeypatch.setattr(wrapper, "close", note_and_close)
    assert left == [TransactionStatus.IDLE]


@pytest.mark.parametrize("method", ["ping", "read", "keep"])
def test_guard_that_is_not_held_proves_nothing(method: str) -> None:
    arguments: dict[str, list[Any]] = {"read": [lambda: 1], "keep": [5.0]}
    guard = session()
    with pytest.raises(GuardLost, match=r"shop\.seed is not held"):
        getattr(guard, method)(*arguments.get(method, []))
    with guard:
        assert guard.acquire()
    with pytest.raises(GuardLost, match=r"shop\.seed is not held"):
        getattr(guard, method)(*arguments.get(method, []))


def test_guard_that_cannot_connect_raises_and_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("HOST", "127.0.0.1"), ("PORT", "1")):
        monkeypatch.setitem(connections.settings["default"], name, value)
    with session() as guard, pytest.raises(Exception, match=r"refused|Can't connect"):
        guard.acquire()
    assert threads() == []


@pytest.fixture
def frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[SessionGuard, threading.Event]]:
    """A guard that stops to ping, as if its process was frozen, and what thaws it."""
    thaw = threading.Event()
    guard = session(liveness=0.6)
    beat = guard.beat

    def freeze() -> None:
        assert thaw.wait(30)
        beat()

    monkeypatch.setattr(guard, "beat", freeze)
    with guard:
        assert guard.acquire()
        yield guard, thaw
        thaw.set()


@pytest.mark.postgresql
def test_server_evicts_a_holder_that_stops_to_ping(
    frozen: tuple[SessionGuard, threading.Event],
) -> None:
    guard, thaw = frozen
    guard.check()

    def takes_over() -> bool:
        with session() as successor:
            return successor.acquire()

    assert wait_until(takes_over) > 0.3
    with pytest.raises(GuardLost, match="had no answer from its server for"):
        guard.check()
    thaw.set()
    with pytest.raises(GuardLost, match="was lost"):
        guard.ping()
    with pytest.raises(GuardLost, match="was lost"):
        guard.check()


@pytest.mark.postgresql
def test_silent_holder_tells_losers_when_it_will_be_evicted(
    frozen: tuple[SessionGuard, threading.Event],
) -> None:
    seen: list[float | None] = []

    def loses() -> bool:
        with session(liveness=0.6) as loser:
            if loser.acquire():
                return False
            loser.find_holder()
            seen.append(loser.freed_in)
            return True

    assert loses()
    assert seen == [None]  # it may still be alive
    wait_until(lambda: not loses())
    announced = [seconds for seconds in seen if seconds is not None]
    assert announced == sorted(announced, reverse=True)
    assert 0.0 < announced[0] < 0.3


@pytest.mark.postgresql
def test_holder_that_pings_outlives_its_liveness_timeout() -> None:
    with session(liveness=1.0) as guard:
        assert guard.acquire()
        assert guard._session is not None
        held = guard._session
        began = held.answered
        wait_until(lambda: held.answered > began + 2.0)
        guard.check()
        with session() as other:
            assert not other.acquire()


@pytest.mark.postgresql
def test_ping_after_the_end_of_the_session_says_lost() -> None:
    with session() as guard:
        assert guard.acquire()
        ended = rows(
            "default",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'once %%' AND datname = current_database()",
        )
        assert ended == [(True,)]
        guard.check()  # asks nobody
        with pytest.raises(GuardLost, match=r"guard of shop\.seed was lost: .*terminat"):
            guard.ping()
        for ask in (guard.check, guard.ping, lambda: guard.keep(5.0)):
            with pytest.raises(GuardLost, match="was lost"):
                ask()
        with session() as successor:
            assert successor.acquire()


@pytest.mark.postgresql
def test_what_raises_in_the_session_loses_the_guard() -> None:
    with session() as guard:
        assert guard.acquire()
        with pytest.raises(GuardLost, match="division by zero"):
            guard.read(lambda: rows("default", "SELECT 1 / 0"))
        with session() as successor:
            wait_until(successor.acquire)


def test_guard_gives_itself_up_while_its_caller_waits_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SessionGuard, "patience", (0.1, 0.2))
    with session() as guard:
        assert guard.acquire()
        with guard.yielding(), session() as other:
            assert wait_until(other.acquire) > 0.05
        with pytest.raises(GuardLost, match="gave itself up"):
            guard.ping()


def test_guard_whose_caller_waited_shortly_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionGuard, "patience", (0.2, 0.2))
    with session(liveness=1.2) as guard:
        assert guard.acquire()
        with guard.yielding():
            pass
        assert guard._session is not None
        held = guard._session
        began = held.answered
        wait_until(lambda: held.answered > began + 0.3)  # by pings
        guard.check()


# Heirs


def test_first_who_is_refused_is_the_heir_and_the_only_one() -> None:
    with session() as holder, session() as heir, session() as other:
        assert holder.acquire()
        assert not holder.is_heir
        assert not heir.acquire()
        assert heir.is_heir
        assert not other.acquire()
        # The place is free for a moment, each time that its heir asks anew.
        wait_until(lambda: heir.is_heir is not other.is_heir)
        if other.is_heir:
            heir, other = other, heir
        wait_until(lambda: not other.is_worth_trying())
        heir.release()
        assert other.is_worth_trying()  # to be the heir
        assert not other.acquire()
        assert other.is_heir
        holder.release()
        other.attend(60)
        assert other.is_worth_trying()


def test_heir_that_steps_back_keeps_what_it_got_meanwhile() -> None:
    """Between a refusal and the pause after it: no longer its heir, it would sleep for long."""
    with session() as holder, session() as heir, session() as other:
        assert holder.acquire()
        assert not heir.acquire()
        holder.release()
        wait_until(heir.is_worth_trying)
        heir.step_back()
        assert not other.acquire()
        heir.attend(60)  # it was told
        assert heir.is_worth_trying()
        assert heir.acquire()
        heir.step_back()
        assert other.acquire()


def test_heir_is_told_once_the_lock_is_free_and_keeps_it_from_others() -> None:
    with session() as holder, session() as heir, session() as other:
        assert holder.acquire()
        assert not heir.acquire()
        heir.attend(0.2)
        assert not heir.is_worth_trying()
        with beside(lambda: heir.attend(60)) as told:
            holder.release()
            told.result(10)
        assert heir.is_worth_trying()
        assert not other.acquire()
        heir.attend(60)  # it need not be told twice
        assert heir.acquire()
        assert not heir.is_heir
        assert not other.acquire()
        assert other.is_heir
        other.step_back()
        assert other.is_heir  # it has nowhere to go
        heir.step_back()
        other.attend(60)
        other.release()  # what it had to itself
        assert heir.acquire()


@pytest.mark.postgresql
def test_heir_whose_session_ended_is_one_among_others() -> None:
    with session() as holder, session() as heir, session() as other:
        assert holder.acquire()
        assert not heir.acquire()
        ended = rows(
            "default",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name LIKE 'once heir %%' AND datname = current_database()",
        )
        assert ended == [(True,)]
        assert not other.acquire()
        assert other.is_heir
        heir.attend(60)  # it is told that it lost its place
        assert not heir.acquire()
        holder.release()
        other.release()
        assert heir.acquire()


def test_next_guard_takes_over_the_session_and_frees_the_lock_before() -> None:
    opened: list[str] = []
    here = database("default")

    def note(connection: Any, **kwargs: Any) -> None:
        opened.append(threading.current_thread().name)

    with receiving(connection_created, note), session("first", liveness=7.0) as first:
        assert first.acquire()
        first.keep(30.0)
        with here.guard("second", 7.0, first) as second:
            assert here.holder("first") is not None
            assert second.acquire()
            assert here.holder("first") is None
            assert here.holder("second") is not None
            with pytest.raises(GuardLost, match="first is not held"):
                first.ping()
            second.ping()
            if not is_mysql():
                assert setting(second, "idle_in_transaction_session_timeout") == "7s"
            with here.guard("third", 7.0, second) as third:
                third.release()  # it was not needed, so that it took over and never tried
                assert here.holder("second") is None
    assert [name for name in opened if name != "MainThread"] == ["once guard of first"]
    assert threads() == []


def test_next_guard_after_a_lost_one_has_a_session_of_its_own() -> None:
    with session("first") as first:
        assert first.acquire()
        with pytest.raises(GuardLost):
            first.read(lambda: rows("default", "SELECT nonsense"))
        with database("default").guard("second", 15.0, first) as second:
            assert second.acquire()
            second.ping()


# SQLite


def test_database_in_memory_has_a_guard_in_memory_and_a_file_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(database("sqlite").guard(NAME, 15.0), MemoryGuard)
    path = tmp_path / "db.sqlite3"
    on_disk = {**connections.settings["sqlite"], "NAME": str(path)}
    monkeypatch.setitem(connections.settings, "on_disk", on_disk)
    here = database("on_disk")
    with here.guard(NAME, 15.0) as guard, FileGuard(path) as other:
        assert here.holder(NAME) is None
        assert guard.acquire()
        assert not other.acquire()
        assert here.holder(NAME) == other.holder
    del connections["on_disk"]


HOLD = """
import sys
from pathlib import Path
from once.databases.sqlite import FileGuard
guard = FileGuard(Path(sys.argv[1]))
print(guard.acquire(), flush=True)
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
        with FileGuard(path) as guard:
            assert not guard.acquire()
            assert f"(pid {holder.pid})" in guard.holder
            holder.kill()
            holder.wait(30)
            assert guard.acquire()


def test_who_waits_for_a_file_is_told_once_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with FileGuard(path) as holder, FileGuard(path) as waiter:
        assert holder.acquire()
        assert not waiter.acquire()
        waiter.attend(0.2)
        with beside(lambda: waiter.attend(60)) as told:
            holder.release()
            told.result(10)
        assert holder.acquire()  # being told is not having it
        holder.attend(0.1)
        assert not waiter.acquire()


def test_file_is_held_against_another_process(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with FileGuard(path) as guard:
        assert guard.acquire()
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


def test_file_guard_leaves_the_database_usable(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite3"
    with FileGuard(path) as guard:
        assert guard.acquire()
        with closing(sqlite3.connect(path, timeout=0)) as other, other:
            other.execute("CREATE TABLE written (x)")
        with closing(sqlite3.connect(path, timeout=0)) as other:
            assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("written",)]


def test_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FileLock", SoftFileLock)
    guard = FileGuard(tmp_path / "db.sqlite3")
    with pytest.raises(OnceError, match="has no file locks"):
        guard.acquire()
    guard.release()


def test_memory_guards_of_two_databases_do_not_exclude_each_other() -> None:
    with MemoryGuard("one") as first, MemoryGuard("two") as second:
        assert first.acquire()
        assert second.acquire()
