"""A session in its thread: what is lost when, who is told, and what is left, without a server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any, cast

import pytest
from django.db import InterfaceError, OperationalError, connections

from once.databases import sessions
from once.databases.sessions import Session
from once.exceptions import LockLost, NoConnection
from tests.waiting import wait_until


class Holder:
    """A lock that notes what it is asked."""

    using = "default"
    name = "shop.seed"

    def __init__(self) -> None:
        self.liveness = 15.0
        self.pause = 60.0
        self.done: list[str] = []
        self.beats = 0
        self.on_beat: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        #: The driver's connection, which is none where it broke.
        self.connection: object | None = object()

    def interval(self, took: float) -> float:
        return self.pause

    def connect(self) -> Any:
        self.done.append("connect")
        return self

    def close(self) -> None:
        self.done.append("close")

    def heartbeat(self) -> None:
        self.beats += 1
        self.on_beat()

    def obstacle(self) -> str:
        return "Nobody knows why"

    def end(self) -> None:
        self.done.append("end")
        self.on_end()


@pytest.fixture
def holder() -> Holder:
    return Holder()


@pytest.fixture
def session(holder: Holder) -> Iterator[Session]:
    session = Session(cast("Any", holder))
    yield session
    session.close()
    wait_until(lambda: not session._thread.is_alive())


def ask(session: Session, function: Callable[[], Any] = lambda: 1) -> Any:
    return session.ask(function, 30)


def fail(error: Exception) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_first_question_connects_in_the_thread_and_the_next_does_not(
    session: Session, holder: Holder
) -> None:
    assert ask(session, lambda: (connections["default"], threading.current_thread())) == (
        holder,
        session._thread,
    )
    assert ask(session) == 1
    assert holder.done == ["connect"]
    assert session._thread.name == "once lock of shop.seed"
    assert session._thread.daemon
    assert not session.is_lost


def test_answer_is_as_old_as_its_question(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "monotonic", iter([100.0, 103.0, *[103.0] * 9]).__next__)
    ask(session)
    assert (session.answered, session.took) == (100.0, 3.0)


def test_end_of_a_session_frees_and_closes(session: Session, holder: Holder) -> None:
    ask(session)
    session.close()
    assert not session._thread.is_alive()
    assert holder.done == ["connect", "end", "close"]
    session.close()


def test_end_of_a_session_that_never_connected_closes_nothing(
    session: Session, holder: Holder
) -> None:
    session.close()
    assert not session._thread.is_alive()
    assert holder.done == []


def test_end_of_a_broken_session_closes_it_all_the_same(session: Session, holder: Holder) -> None:
    holder.on_end = fail(InterfaceError("broken"))
    ask(session)
    session.close()
    assert holder.done == ["connect", "end", "close"]


def test_end_of_a_session_that_cannot_be_closed_is_the_end(
    session: Session, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, "close", fail(InterfaceError("broken")))
    with pytest.raises(LockLost, match="gone"):
        ask(session, fail(OperationalError("gone")))
    assert holder.done == ["connect", "end"]


def test_end_of_a_session_without_its_drivers_connection_asks_nothing(
    session: Session, holder: Holder
) -> None:
    holder.connection = None
    ask(session)
    session.close()
    assert holder.done == ["connect", "close"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationalError(" gone\n"), "OperationalError: gone"),
        (OperationalError(), "OperationalError"),
    ],
)
def test_error_to_what_must_be_answered_is_the_loss(
    session: Session, holder: Holder, error: Exception, reason: str
) -> None:
    ask(session)
    with pytest.raises(LockLost) as lost:
        ask(session, fail(error))
    assert str(lost.value) == f"The lock of shop.seed was lost: {reason}"
    assert lost.value.__cause__ is error
    assert session.is_lost
    assert holder.done == ["connect", "end", "close"]


def test_lost_session_tells_everybody_anew_and_does_not_connect_again(
    session: Session, holder: Holder
) -> None:
    with pytest.raises(LockLost):
        ask(session, fail(OperationalError("gone")))
    told: list[BaseException] = []
    for question in (session.check, lambda: ask(session)):
        with pytest.raises(LockLost, match="gone") as raised:
            question()
        told.append(raised.value)
    assert len(set(map(id, told))) == 2
    assert holder.done.count("connect") == 1


def test_other_errors_are_the_callers_and_no_loss(session: Session) -> None:
    with pytest.raises(LookupError):
        ask(session, fail(LookupError()))
    assert not session.is_lost
    assert ask(session) == 1


def test_no_answer_in_time_is_the_loss_and_nobody_waits_again(session: Session) -> None:
    may_end = threading.Event()
    ask(session)
    with pytest.raises(LockLost, match=r"was lost: no answer for 0 s"):
        session.ask(lambda: may_end.wait(30), 0.01)
    began = time.monotonic()
    with pytest.raises(LockLost, match="no answer"):
        session.ask(lambda: None, 30)
    session.close()
    assert time.monotonic() - began < 10
    assert session.is_lost
    assert session._thread.is_alive()
    may_end.set()


def test_connection_that_is_not_had_in_time_is_named(session: Session, holder: Holder) -> None:
    may_end = threading.Event()
    holder.connection = None

    def connect() -> None:
        may_end.wait(30)

    with pytest.raises(NoConnection, match=r"No connection was to be had for the lock of shop\.se"):
        session.ask(connect, 0.01)
    may_end.set()


PLACE: ContextVar[str] = ContextVar("place", default="nowhere")


def test_session_asks_in_the_context_of_its_last_caller(session: Session, holder: Holder) -> None:
    """A back end may keep the schema in a context variable."""
    seen: list[str] = []
    holder.on_beat = lambda: seen.append(PLACE.get())
    token = PLACE.set("first")
    session.context = copy_context()
    assert ask(session, PLACE.get) == "first"
    PLACE.set("second")
    assert ask(session, PLACE.get) == "first"
    session.context = copy_context()
    assert ask(session, PLACE.get) == "second"
    PLACE.reset(token)
    holder.pause = 0.01
    ask(session)  # it reads the pause anew
    wait_until(lambda: seen)
    assert set(seen) == {"second"}


def test_timeout_that_the_function_raises_is_its_own(session: Session) -> None:
    with pytest.raises(TimeoutError, match="mine"):
        session.ask(fail(TimeoutError("mine")), 30)
    assert not session.is_lost


def test_check_by_the_age_of_the_last_answer(session: Session) -> None:
    ask(session)
    session.answered = time.monotonic() - 14.0
    session.check()
    session.answered = time.monotonic() - 16.0
    with pytest.raises(LockLost, match=r"no answer from its server for 16\.\d s"):
        session.check()
    assert not session.is_lost


def test_signs_of_life_come_by_themselves_and_make_answers_young(
    session: Session, holder: Holder
) -> None:
    holder.pause = 0.01
    ask(session)
    first = session.answered
    wait_until(lambda: holder.beats >= 3)
    assert session.answered > first


def test_signs_of_life_do_not_come_before_their_time(session: Session, holder: Holder) -> None:
    ask(session)
    session.abandon_after(0.05)
    session.abandon_after(None)
    threading.Event().wait(0.2)  # it has looked at the time, and went back to sleep
    assert holder.beats == 0


def test_nothing_is_kept_alive_before_it_is_connected(session: Session, holder: Holder) -> None:
    holder.pause = 0.0
    session.abandon_after(0.05)  # it reads the pause anew
    threading.Event().wait(0.2)
    assert (holder.beats, session.is_lost) == (0, False)


def test_sign_of_life_that_fails_is_the_loss_and_the_last_one(
    session: Session, holder: Holder
) -> None:
    holder.pause, holder.on_beat = 0.01, fail(OperationalError("gone"))
    ask(session)
    wait_until(lambda: session.is_lost)
    with pytest.raises(LockLost, match="gone"):
        session.check()
    wait_until(lambda: "close" in holder.done)
    threading.Event().wait(0.1)
    assert holder.beats == 1


def test_silence_is_kept(session: Session, holder: Holder) -> None:
    ask(session)
    session.stop_heartbeat()
    holder.pause = 0.05
    ask(session)  # it reads the pause anew
    threading.Event().wait(0.3)
    assert holder.beats == 0
    assert session.ask(lambda: 1, 30) == 1


def test_gives_itself_up_in_time_and_says_what_to_do(session: Session, holder: Holder) -> None:
    ask(session)
    began = time.monotonic()
    session.abandon_after(0.05)
    wait_until(lambda: session.is_lost)
    assert time.monotonic() - began >= 0.05
    for question in (session.check, lambda: ask(session)):
        with pytest.raises(NoConnection, match=r"shop\.seed.* gave itself up\. Nobody knows"):
            question()
    assert holder.done == ["connect", "end", "close"]
    assert holder.beats == 0


def test_says_that_it_failed_itself_where_it_cannot_say_more(
    session: Session, holder: Holder
) -> None:
    holder.obstacle = fail(OperationalError("gone"))  # type: ignore[assignment]
    ask(session)
    session.abandon_after(0.05)
    wait_until(lambda: session.is_lost)
    with pytest.raises(NoConnection, match=r"Its own session fails: OperationalError: gone"):
        session.check()


@pytest.mark.parametrize("later", [None, 60.0])
def test_keeps_itself_where_the_work_has_its_answer_while_the_obstacle_is_asked_for(
    session: Session, holder: Holder, later: float | None
) -> None:
    asked = threading.Event()

    def obstacle() -> str:
        session.abandon_after(None)
        session.abandon_after(later)
        asked.set()
        return "Nobody knows why"

    holder.obstacle = obstacle  # type: ignore[method-assign]
    ask(session)
    session.abandon_after(0.05)
    assert asked.wait(30)
    assert ask(session) == 1


@pytest.mark.parametrize("later", [None, 60.0])
def test_does_not_give_itself_up_after_all(session: Session, later: float | None) -> None:
    ask(session)
    session.abandon_after(0.05)
    session.abandon_after(later)
    threading.Event().wait(0.2)
    assert not session.is_lost
    assert ask(session) == 1


@pytest.mark.parametrize(("before", "seconds"), [(0.1, 0.2), (60.0, 0.1)])
def test_gives_itself_up_in_time_whatever_it_waited_for_before(
    session: Session, before: float, seconds: float
) -> None:
    ask(session)
    session.abandon_after(before)
    session.abandon_after(None)
    session.abandon_after(seconds)
    wait_until(lambda: session.is_lost)
