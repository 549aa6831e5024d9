"""Late exceptions: at each line around BEGIN, COMMIT and ROLLBACK a signal handler may raise one.

Also what signal receivers and hooks leave behind: whatever happens, the report is what the database
has, and nothing is there by half.
"""

import gc
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic

from once import Routine, Run, signals
from once.databases import transactions
from once.engine.attempt import Work
from once.models import Attempt, Completion, Trigger
from once.results import Outcome, Result
from tests.shop.models import Effect
from tests.support import attempts, beside, effects, receiving, run, seed

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "sqlite"]),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]


class SoftTimeLimitExceeded(Exception):
    """As Celery raises it in a signal handler."""


#: What a signal handler may raise, in turn.
LATE = [KeyboardInterrupt, SoftTimeLimitExceeded, SystemExit]


def _codes(using: str) -> set[CodeType]:
    """The code in which an exception is late."""
    wrapper: Any = type(connections[using])
    methods = [Atomic.__enter__, Atomic.__exit__, Work.transact, Work._end]
    for name in ("commit", "_commit", "rollback", "_rollback", "set_autocommit"):
        methods.append(getattr(wrapper, name))
    for name in ("_set_autocommit", "_start_transaction_under_autocommit"):
        if hasattr(wrapper, name):
            methods.append(getattr(wrapper, name))
    methods.append(BaseDatabaseWrapper.run_and_clear_commit_hooks)
    codes = {getattr(method, "__wrapped__", method).__code__ for method in methods}
    return codes | {
        function.__code__
        for owner in (transactions, transactions.WorkTransaction)
        for function in vars(owner).values()
        if getattr(function, "__module__", "") == transactions.__name__
        and hasattr(function, "__code__")
    }


@dataclass
class Injection:
    """Raises at one line of some code: the number counts the lines as they are run."""

    codes: set[CodeType]
    number: int = 0
    error: type[BaseException] = KeyboardInterrupt
    #: What called each line that was run, and its own code.
    lines: list[set[CodeType]] = field(default_factory=list, init=False)

    @contextmanager
    def active(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._step if frame.f_code in self.codes else None

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.lines.append(set() if self.number else set(_callers(frame)))
            if len(self.lines) == self.number:
                sys.settrace(None)  # because nothing more is raised, what follows may be fast
                raise self.error("late")
        return self._step

    def points(self, stride: int = 4) -> list[int]:
        """Numbers of lines: those around a COMMIT by a stride, of the rest every fifth of that."""
        end = transactions.WorkTransaction.__exit__.__code__
        numbers: dict[bool, list[int]] = {True: [], False: []}
        for number, callers in enumerate(self.lines, 1):
            numbers[end in callers].append(number)
        assert len(numbers[True]) > 30
        # No stride is a multiple of three, so that each kind of exception takes its turn.
        return sorted(numbers[True][::stride] + numbers[False][:: 5 * stride])


def _callers(frame: FrameType | None) -> Iterator[CodeType]:
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def routine_of(kind: str, using: str, name: str, failing: bool) -> Routine:
    """A routine of two effects, each committed alone where it is batched."""

    def work(number: int) -> None:
        Effect.objects.using(using).create(name=f"{name} {number}")
        if failing and number == 2:
            raise LookupError("no such body")

    def atomic() -> None:
        work(1)
        work(2)

    def batch(items: list[int]) -> None:
        work(*items)

    kinds: dict[str, dict[str, Any]] = {
        "atomic": {"function": atomic},
        "external": {"function": atomic, "atomic": False},
        "batched": {"function": batch, "over": lambda: [1, 2], "batch_size": 1},
    }
    return seed(using, name, **kinds[kind])


@dataclass
class Seen:
    """What another connection sees of a routine."""

    is_completed: bool
    effects: list[str]
    states: list[str]
    processed: int

    @classmethod
    def all(cls, using: str) -> dict[str, "Seen"]:
        """Look at all routines, by name."""

        def look() -> dict[str, "Seen"]:
            histories: dict[str, list[Attempt]] = {}
            for one in Attempt.objects.using(using).order_by("routine", "number"):
                histories.setdefault(one.routine, []).append(one)
            completed = {one.routine for one in Completion.objects.using(using)}
            made = effects(using)
            return {
                name: cls(
                    name in completed,
                    [one for one in made if one.startswith(f"{name} ")],
                    [one.state for one in history],
                    max(one.processed for one in history),
                )
                for name, history in histories.items()
            }

        with beside(look) as answer:
            return defaultdict(lambda: cls(False, [], [], 0), answer.result(30))


@pytest.fixture(scope="module", autouse=True)
def unclosed() -> Iterator[None]:
    """An exception amid the making of a connection leaves it to the garbage collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def inject(
    using: str, act: Callable[[], list[Result]], number: int = 0
) -> tuple[list[Result] | None, Injection]:
    """Do something while an exception is raised at that line; the results, if there are any."""
    injection = Injection(_codes(using), number, LATE[number % len(LATE)])
    results: list[Result] | None = None
    try:
        with injection.active():
            results = act()
    except (KeyboardInterrupt, SoftTimeLimitExceeded, SystemExit):
        assert number
    # The calling thread's connection is of use, whatever was reported.
    assert not connections[using].in_atomic_block
    assert connections[using].get_autocommit()
    return results, injection


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "failing"),
    [("atomic", False), ("atomic", True), ("batched", False), ("external", False)],
    ids=["atomic", "failing", "batched", "external"],
)
def test_report_of_a_late_exception_is_what_the_database_has(
    using: str, kind: str, failing: bool
) -> None:
    _, dry = inject(using, lambda: run(routine_of(kind, using, "dry", failing)))
    reports: dict[str, list[Result] | None] = {}
    # Every line around the COMMIT of an atomic routine, which all kinds share.
    for number in dry.points(stride=1 if kind == "atomic" and not failing else 4):
        name = f"r{number}"
        pair = routine_of(kind, using, name, failing), seed(using, f"{name}.next")
        reports[name], _ = inject(using, lambda: run(*pair, keep_going=True), number)  # noqa: B023
    seen = Seen.all(using)
    for name, results in reports.items():
        have = seen[name]
        # Nothing is there by half, whatever was reported.
        assert have.is_completed is ("succeeded" in have.states), (name, have)
        if kind == "atomic":
            assert have.effects == ([f"{name} 1", f"{name} 2"] if have.is_completed else []), name
        elif kind == "batched":
            assert len(have.effects) == have.processed, (name, have)
        assert not (failing and have.is_completed), (name, have)
        if results is not None:
            result, after = results
            assert (result.outcome is Outcome.RAN) is have.is_completed, (name, result, have)
            is_done = seen[after.routine.name].is_completed
            assert (after.outcome is Outcome.RAN) is is_done, (name, after)
    again = run(*(routine_of(kind, using, name, failing=False) for name in reports))
    assert [one.message for one in again if not one.is_done] == []
    if kind != "external":
        assert effects_of(reports, using) == {name: [f"{name} 1", f"{name} 2"] for name in reports}


def effects_of(names: Iterable[str], using: str) -> dict[str, list[str]]:
    seen = Seen.all(using)
    return {name: seen[name].effects for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("decision", [Trigger.FAKE, Trigger.RESET])
def test_report_of_a_late_exception_in_a_decision_is_what_the_database_has(
    using: str, decision: Trigger
) -> None:
    def decide(name: str, number: int = 0) -> tuple[list[Result] | None, Injection]:
        routine = routine_of("atomic", using, name, failing=False)
        return inject(using, lambda: run(routine, trigger=decision, even_done=True), number)

    def prepare(*names: str) -> None:
        if decision is Trigger.RESET:
            run(*(routine_of("atomic", using, name, failing=False) for name in names))

    prepare("dry")
    points = decide("dry")[1].points()
    prepare(*(f"r{number}" for number in points))
    reports = {f"r{number}": decide(f"r{number}", number)[0] for number in points}
    seen = Seen.all(using)
    for name, results in reports.items():
        have = seen[name]
        is_carried_out = have.is_completed is (decision is Trigger.FAKE)
        own = have.states[decision is Trigger.RESET :]
        # An interrupted one may have been followed by another.
        assert is_carried_out is (own[-1:] == ["succeeded"]), (name, have)
        if results is not None:
            [result] = results
            assert (result.outcome is Outcome.RECORDED) is is_carried_out, (name, result, have)


# What other code leaves behind


def autocommit_off(using: str) -> None:
    connections[using].set_autocommit(False)


def raw_begin(using: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute("BEGIN")


def atomic_not_left(using: str) -> None:
    transaction.atomic(using=using).__enter__()


MISDEEDS = [autocommit_off, raw_begin, atomic_not_left]
misdeed = pytest.mark.parametrize("misdeed", MISDEEDS, ids=lambda one: one.__name__)


def leaving(using: str, misdeed: Callable[[str], None]) -> Callable[..., None]:
    """A receiver, or a hook, that writes and does not commit, in the first routine."""

    def receive(sender: Routine | None = None, **kwargs: Any) -> None:
        if sender is None or sender.name == "first":
            misdeed(using)
            Effect.objects.using(using).create(name="left")

    return receive


@misdeed
@pytest.mark.parametrize("kind", ["atomic", "batched", "external"])
@pytest.mark.parametrize("name", ["attempt_started", "attempt_finished", "progressed"])
def test_receiver_that_leaves_a_transaction_open_takes_nothing_with_it(
    using: str, name: str, kind: str, misdeed: Callable[[str], None]
) -> None:
    first, second = routine_of(kind, using, "first", failing=False), seed(using, "second")
    with receiving(getattr(signals, name), leaving(using, misdeed)):
        results = run(first, second, keep_going=True)
    assert not connections[using].in_atomic_block
    seen = Seen.all(using)
    for result in results:
        have = seen[result.routine.name]
        assert (result.outcome is Outcome.RAN) is have.is_completed, (result, have)
    assert results[1].outcome is Outcome.RAN
    assert "left" not in effects(using)
    is_hit = name != "progressed" or kind == "batched"
    assert ("left a transaction of database" in results[0].message) is is_hit
    if name == "attempt_finished":
        assert results[0].outcome is Outcome.RAN


@misdeed
@pytest.mark.parametrize("kind", ["atomic", "batched"])
def test_hook_that_leaves_a_transaction_open_takes_nothing_with_it(
    using: str, kind: str, misdeed: Callable[[str], None]
) -> None:
    hook = leaving(using, misdeed)

    def body(run: Run) -> None:
        Effect.objects.using(using).create(name="done")
        transaction.on_commit(hook, using=using)

    def batch(items: list[int], run: Run) -> None:
        body(run)

    options: dict[str, Any] = {"function": body}
    if kind == "batched":
        options = {"function": batch, "over": lambda: [1, 2], "batch_size": 1}
    first, second = run(seed(using, "first", **options), seed(using, "second"))
    assert first.outcome is second.outcome is Outcome.RAN
    assert first.message.startswith("Done and recorded, but afterwards: A signal receiver, ")
    assert effects(using) == ["done"] * (2 if kind == "batched" else 1) + ["second"]
    assert attempts(using) == [("first", 1, "succeeded"), ("second", 1, "succeeded")]


@pytest.mark.parametrize("misdeed", [raw_begin, autocommit_off], ids=lambda one: one.__name__)
def test_external_body_that_begins_a_transaction_and_leaves_it_is_an_error(
    using: str, misdeed: Callable[[str], None]
) -> None:
    (result,) = run(seed(using, function=lambda: leaving(using, misdeed)(), atomic=False))
    assert result.outcome is Outcome.FAILED
    assert "left a transaction open" in result.message
    assert effects(using) == []


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("error", "state", "told"),
    [
        (SoftTimeLimitExceeded, "failed", "SoftTimeLimitExceeded: late"),
        (SystemExit, "failed", "The body, or a signal handler of the server while it ran, called"),
        (KeyboardInterrupt, "interrupted", "KeyboardInterrupt: late"),
    ],
)
def test_exception_in_place_of_a_commit_is_what_is_recorded(
    error: type[BaseException], state: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not Django's own, that autocommit cannot be turned on amid a transaction."""

    def raise_late(connection: object) -> None:
        monkeypatch.undo()
        raise error("late")

    def body() -> None:
        monkeypatch.setattr(type(connections["default"]), "_commit", raise_late)

    with suppress(KeyboardInterrupt):
        (result,) = run(seed("default", function=body))
        assert result.message.startswith(told)
    [attempt] = Attempt.objects.all()
    assert (attempt.state, attempt.error_line.startswith(told)) == (state, True)
    assert "autocommit" not in attempt.error


@pytest.mark.postgresql
def test_commit_that_the_server_turns_into_a_rollback_is_an_error() -> None:
    """A wrapper of queries may break the transaction after the last statement of the record."""

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if "SUCCEEDED" in f"{params}" and "UPDATE" in sql:
            connections["default"].execute_wrappers.remove(explain)
            with connections["default"].connection.cursor() as cursor:
                try:
                    cursor.execute("SELECT broken")
                except Exception:
                    return result
        return result

    def body() -> None:
        Effect.objects.create(name="gone")

    routine = seed("default", function=body)
    with receiving(signals.attempt_started, lambda **_: _wrap(explain)):
        (result,) = run(routine)
    assert result.outcome is Outcome.FAILED, result.message
    assert not Seen.all("default")[routine.name].is_completed


@pytest.mark.postgresql
def test_statements_of_a_wrapper_of_queries_are_undone_with_the_body() -> None:
    """Even the one before the first statement, which begins the transaction."""
    connection = connections["default"]

    def audit(execute: Any, *call: Any) -> Any:
        if connection.in_atomic_block:
            with connection.connection.cursor() as cursor:
                cursor.execute("INSERT INTO shop_effect (name, pid) VALUES ('audit', 1)")
        return execute(*call)

    def body() -> None:
        connection.execute_wrappers.remove(audit)
        raise LookupError("no such body")

    with receiving(signals.attempt_started, lambda **_: _wrap(audit)):
        (result,) = run(seed("default", function=body))
    assert result.outcome is Outcome.FAILED
    assert effects("default") == []


def _wrap(wrapper: Any) -> None:
    connections["default"].execute_wrappers.append(wrapper)
