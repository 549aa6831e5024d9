"""Ending early: at once where it does no harm, else when that is over; in the main thread only."""

import threading

import pytest

from once import interruption


class Stop(KeyboardInterrupt):
    """What a signal handler raises."""


@pytest.fixture(autouse=True)
def _nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_pending", None)
    monkeypatch.setattr(interruption, "_is_deferred", False)


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
    interruption.check()


def test_interruption_is_raised_at_once_where_nothing_defers_it() -> None:
    stop = Stop()
    with pytest.raises(Stop) as raised:
        interruption.interrupt(stop)
    assert raised.value is stop
    interruption.check()  # and not a second time


def test_interruption_is_raised_at_the_end_of_what_defers_it() -> None:
    done: list[bool] = []

    def work() -> None:
        with interruption.deferred():
            done.append(interruption.interrupt(Stop()))
            done.append(True)

    with pytest.raises(Stop):
        work()
    assert done == [True, True]
    interruption.check()


def test_interruption_is_raised_by_a_check_of_the_deferred_work() -> None:
    def work() -> None:
        with interruption.deferred():
            interruption.interrupt(Stop())
            interruption.check()
            pytest.fail("the check did not raise")

    with pytest.raises(Stop):
        work()


def test_check_that_a_body_caught_is_raised_at_the_end_all_the_same() -> None:
    def work() -> None:
        with interruption.deferred():
            interruption.interrupt(Stop())
            with pytest.raises(Stop):
                interruption.check()

    with pytest.raises(Stop):
        work()
    interruption.check()


def test_error_of_deferred_work_goes_first_and_the_interruption_stays() -> None:
    def work() -> None:
        with interruption.deferred():
            interruption.interrupt(Stop())
            raise LookupError

    with pytest.raises(LookupError):
        work()
    with pytest.raises(Stop):
        interruption.check()


def test_deferral_ends_with_its_context() -> None:
    with pytest.raises(LookupError), interruption.deferred():
        raise LookupError
    with pytest.raises(Stop):
        interruption.interrupt(Stop())


def test_work_in_another_thread_does_not_defer() -> None:
    deferring, told = threading.Event(), threading.Event()

    def work() -> None:
        with interruption.deferred():
            deferring.set()
            assert told.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert deferring.wait(30)
        with pytest.raises(Stop):
            interruption.interrupt(Stop())
    finally:
        told.set()
        thread.join()


def test_deferral_inside_another_one_raises_at_the_end_of_that() -> None:
    done: list[str] = []

    def work() -> None:
        with interruption.deferred():
            with interruption.deferred():
                interruption.interrupt(Stop())
            done.append("after the inner one")

    with pytest.raises(Stop):
        work()
    assert done == ["after the inner one"]


def test_interruption_is_raised_at_once_where_deferred_work_heeds_it() -> None:
    def work() -> None:
        with interruption.deferred(), interruption.heeded():
            interruption.interrupt(Stop())
            pytest.fail("nothing was raised")

    with pytest.raises(Stop):
        work()


def test_interruption_that_is_pending_is_raised_before_what_heeds_it() -> None:
    def work() -> None:
        with interruption.deferred():
            interruption.interrupt(Stop())
            with interruption.heeded():
                pytest.fail("nothing was raised")

    with pytest.raises(Stop):
        work()


def test_work_is_deferred_again_after_a_part_that_heeds() -> None:
    done: list[bool] = []

    def work() -> None:
        with interruption.deferred():
            with interruption.heeded():
                pass
            done.append(interruption.interrupt(Stop()))

    with pytest.raises(Stop):
        work()
    assert done == [True]


def test_interruption_that_is_forgotten_is_not_raised() -> None:
    with interruption.deferred():
        interruption.interrupt(Stop())
        interruption.forget()
    interruption.check()


def test_end_of_work_in_another_thread_raises_nothing() -> None:
    """Where signals are not handled; but a body there may ask, by run.check()."""

    def work() -> None:
        with interruption.deferred():
            interruption.interrupt(Stop())
            raise LookupError

    def work_there() -> None:
        with interruption.deferred(), interruption.heeded():
            pass

    with pytest.raises(LookupError):
        work()
    assert in_thread(work_there) == []
    assert [type(error) for error in in_thread(interruption.check)] == [Stop]
