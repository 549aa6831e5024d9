"""Ending early: at once where it does no harm, else when that is over; in the main thread only."""

import os
import signal
import threading

import pytest

from once.engine import shutdown


class Stop(KeyboardInterrupt):
    """What a signal handler raises."""


@pytest.fixture(autouse=True)
def _nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "_now", shutdown._State())


HANDLED = (signal.SIGTERM, signal.SIGINT)


def told(number: int = signal.SIGTERM) -> None:
    """Send this process a signal, which it handles."""
    os.kill(os.getpid(), number)


def in_thread(function: object) -> list[BaseException]:
    """What a function raises in another thread."""
    raised: list[BaseException] = []

    def call() -> None:
        assert callable(function)
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised


def test_check_without_an_interruption_is_silent() -> None:
    shutdown.check()


def test_interruption_is_raised_at_once_where_nothing_defers_it() -> None:
    stop = Stop()
    with pytest.raises(Stop) as raised:
        shutdown.interrupt(stop)
    assert raised.value is stop


def test_interruption_is_raised_at_the_end_of_what_defers_it() -> None:
    done: list[bool] = []

    def work() -> None:
        with shutdown.deferred():
            done.append(shutdown.interrupt(Stop()))
            done.append(True)

    with pytest.raises(Stop):
        work()
    assert done == [True, True]


def test_interruption_is_raised_by_a_check_of_the_deferred_work() -> None:
    def work() -> None:
        with shutdown.deferred():
            shutdown.interrupt(Stop())
            shutdown.check()
            pytest.fail("the check did not raise")

    with pytest.raises(Stop):
        work()


def test_check_that_a_body_caught_is_raised_at_the_end_all_the_same() -> None:
    def work() -> None:
        with shutdown.deferred():
            shutdown.interrupt(Stop())
            with pytest.raises(Stop):
                shutdown.check()

    with pytest.raises(Stop):
        work()


def test_error_of_deferred_work_goes_first_and_the_interruption_stays() -> None:
    def work() -> None:
        with shutdown.deferred():
            shutdown.interrupt(Stop())
            raise LookupError

    with pytest.raises(LookupError):
        work()
    with pytest.raises(Stop):
        shutdown.check()


def test_deferral_ends_with_its_context() -> None:
    with pytest.raises(LookupError), shutdown.deferred():
        raise LookupError
    with pytest.raises(Stop):
        shutdown.interrupt(Stop())


def test_work_in_another_thread_does_not_defer() -> None:
    deferring, told = threading.Event(), threading.Event()

    def work() -> None:
        with shutdown.deferred():
            deferring.set()
            assert told.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert deferring.wait(30)
        with pytest.raises(Stop):
            shutdown.interrupt(Stop())
    finally:
        told.set()
        thread.join()


def test_deferral_inside_another_one_raises_at_the_end_of_that() -> None:
    done: list[str] = []

    def work() -> None:
        with shutdown.deferred():
            with shutdown.deferred():
                shutdown.interrupt(Stop())
            done.append("after the inner one")

    with pytest.raises(Stop):
        work()
    assert done == ["after the inner one"]


def test_interruption_is_raised_at_once_where_deferred_work_heeds_it() -> None:
    def work() -> None:
        with shutdown.deferred(), shutdown.heeded():
            shutdown.interrupt(Stop())
            pytest.fail("nothing was raised")

    with pytest.raises(Stop):
        work()


def test_interruption_that_is_pending_is_raised_before_what_heeds_it() -> None:
    def work() -> None:
        with shutdown.deferred():
            shutdown.interrupt(Stop())
            with shutdown.heeded():
                pytest.fail("nothing was raised")

    with pytest.raises(Stop):
        work()


def test_work_is_deferred_again_after_a_part_that_heeds() -> None:
    done: list[bool] = []

    def work() -> None:
        with shutdown.deferred():
            with shutdown.heeded():
                pass
            done.append(shutdown.interrupt(Stop()))

    with pytest.raises(Stop):
        work()
    assert done == [True]


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGTERM, "Ended by SIGTERM."), (signal.SIGINT, "Interrupted.")]
)
def test_handled_signal_is_raised_and_forgotten_with_the_run(number: int, said: str) -> None:
    before = signal.getsignal(number)
    with pytest.raises(shutdown.Signalled) as raised, shutdown.handled(*HANDLED):
        told(number)
    assert (str(raised.value), raised.value.number) == (said, number)
    assert signal.getsignal(number) is before
    shutdown.check()


def test_handled_signal_that_a_body_caught_is_heeded_after_it() -> None:
    def work() -> None:
        with shutdown.handled(*HANDLED):
            with pytest.raises(shutdown.Signalled):
                told()
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # a second one ends at once
            shutdown.heed()
            pytest.fail("it was forgotten")

    with pytest.raises(shutdown.Signalled):
        work()


def test_handled_signal_may_be_followed_by_another_one_for_the_same_end() -> None:
    """A terminal sends SIGINT to all, for which gunicorn sends SIGQUIT to its workers."""

    def work() -> None:
        numbers = (signal.SIGINT, signal.SIGQUIT)
        with shutdown.handled(*numbers, are_forwarded=True):
            with shutdown.deferred():
                told(signal.SIGINT)
                told(signal.SIGQUIT)
                assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            pytest.fail("it was forgotten")

    with pytest.raises(shutdown.Signalled) as raised:
        work()
    assert raised.value.number == signal.SIGINT


@pytest.mark.parametrize("echo", [60.0, -1.0])
def test_second_sigterm_ends_at_once_unless_it_is_an_echo_of_the_first(
    monkeypatch: pytest.MonkeyPatch, echo: float
) -> None:
    """A service manager sends it to all processes, and a server to its workers."""
    monkeypatch.setattr(shutdown, "_ECHO", echo)
    ended: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", ended.append)

    def work() -> None:
        with shutdown.handled(*HANDLED, are_forwarded=True), shutdown.deferred():
            told()
            told()
            assert (signal.getsignal(signal.SIGTERM) is signal.SIG_DFL) is (echo < 0)

    with pytest.raises(shutdown.Signalled):
        work()
    assert ended == ([] if echo > 0 else [signal.SIGTERM])


def test_handled_leaves_signals_that_are_ignored_or_not_pythons_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        signal, "getsignal", {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: None}.get
    )
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was set"))
    with shutdown.handled(*HANDLED):
        pass


def test_handled_outside_of_the_main_thread_changes_no_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with shutdown.handled(*HANDLED):
            assert signal.getsignal(signal.SIGTERM) is before
            assert not shutdown.is_handled()

    assert in_thread(work) == []


def test_handled_inside_a_deferred_body_forgets_nothing_and_raises_after_the_body() -> None:
    done: list[str] = []

    def body() -> None:
        told()
        with shutdown.handled(*HANDLED), shutdown.deferred(), shutdown.heeded():
            shutdown.heed()
            done.append("inner")
        done.append("body")

    def work() -> None:
        with shutdown.handled(*HANDLED):
            with shutdown.deferred():
                body()
            pytest.fail("it was forgotten")

    with pytest.raises(shutdown.Signalled):
        work()
    assert done == ["inner", "body"]


def test_handled_inside_a_body_that_may_be_broken_off_is_broken_off_too() -> None:
    @shutdown.handled(*HANDLED)
    @shutdown.deferred()
    @shutdown.heeded()
    @shutdown.handled(*HANDLED)
    @shutdown.deferred()
    @shutdown.heeded()
    def work() -> None:
        told()
        pytest.fail("nothing was raised")

    with pytest.raises(shutdown.Signalled):
        work()


def test_end_of_work_in_another_thread_raises_nothing() -> None:
    """Where signals are not handled; but a body there may ask, by run.check()."""

    def work() -> None:
        with shutdown.deferred():
            shutdown.interrupt(Stop())
            raise LookupError

    def work_there() -> None:
        with shutdown.deferred(), shutdown.heeded():
            pass

    with pytest.raises(LookupError):
        work()
    assert in_thread(work_there) == []
    assert [type(error) for error in in_thread(shutdown.check)] == [Stop]
