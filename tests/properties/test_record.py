"""The record: whatever is begun, ended, undone or lost, it says what a model of it says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from once import Routine
from once.databases import database
from once.exceptions import AttemptLost
from once.models import Anchor, Attempt, Completion, State, Trigger
from once.record import history, recorder
from once.record.history import NextAttempt
from once.record.standing import Standing
from once.results import Outcome
from tests.shop.models import Effect
from tests.support import run, seed

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

VERSIONS = st.integers(1, 3)
few = settings(max_examples=settings().max_examples // 5)


@dataclass
class Tried:
    """An attempt, as the model knows it."""

    version: int
    key: str
    retry: bool
    row: Attempt = field(repr=False)
    state: State = State.RUNNING


class RecordMachine(RuleBasedStateMachine):
    """Processes that begin, commit, die and come too late, one step after the other."""

    using: str

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Tried] = []
        self.done: set[int] = set()
        #: The key of each version's attempts, until a reset of what was done.
        self.keys: dict[int, str] = {}
        self.old_keys: set[str] = set()
        self.stale: list[tuple[Routine, NextAttempt]] = []

    @initialize()
    def empty(self) -> None:
        for model in (Anchor, Attempt, Completion):
            model._default_manager.using(self.using).all().delete()

    def routine(self, version: int, *, retry: bool = True) -> Routine:
        return seed(self.using, version=version, retry=retry)

    def standing(self, version: int) -> Standing:
        """How a version stands, in the words of the README."""
        if any(other > version for other in self.done):
            return Standing.SUPERSEDED
        if version in self.done:
            return Standing.DONE
        if any(one.version > version for one in self.history):
            return Standing.SUPERSEDED
        went_ill = (State.FAILED, State.INTERRUPTED, State.LOST)
        own = [one for one in self.history if one.version == version]
        if any(not one.retry and one.state in went_ill for one in own):
            return Standing.HELD
        return Standing.OPEN

    def claim(self, version: int, trigger: str, *, retry: bool = True) -> Tried:
        routine = self.routine(version, retry=retry)
        ahead = history.next_attempt(routine)
        assert ahead.number == len(self.history) + 1
        assert ahead.record.standing is self.standing(version)
        assert ahead.key == self.keys.get(version, ahead.key)
        assert ahead.key not in self.old_keys
        assert ahead.key not in [key for one, key in self.keys.items() if one != version]
        running = [one for one in self.history if one.state is State.RUNNING]
        assert [one.number for one in ahead.predecessors] == [one.row.number for one in running]
        row = recorder.begin(routine, ahead, trigger)
        assert row is not None
        self.stale.append((routine, ahead))
        self.keys[version] = row.key
        tried = Tried(version, row.key, retry or trigger == Trigger.RESET, row)
        self.history.append(tried)
        for predecessor, known in zip(ahead.predecessors, running, strict=True):
            known.state = State.LOST
            assert recorder.close(predecessor, State.LOST) is State.LOST
        return tried

    @rule(version=VERSIONS, retry=st.booleans())
    def begin(self, version: int, retry: bool) -> None:
        if self.standing(version) is Standing.OPEN:
            self.claim(version, Trigger.COMMAND, retry=retry)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def begin_too_late(self, data: Any) -> None:
        routine, ahead = data.draw(st.sampled_from(self.stale))
        assert recorder.begin(routine, ahead, Trigger.COMMAND) is None

    @precondition(lambda self: self.history)
    @rule(data=st.data(), may_fence=st.booleans())
    def complete(self, data: Any, may_fence: bool) -> None:
        """Commit, also what another process took the right to."""
        tried = data.draw(st.sampled_from(self.history[-3:]))

        def commit() -> None:
            recorder.lock_attempt(tried.row)
            recorder.complete(tried.row)

        self.commit(tried, commit)
        if tried.state is State.SUCCEEDED and may_fence:
            assert recorder.close(tried.row, State.LOST) is State.SUCCEEDED

    def commit(self, tried: Tried, work: Callable[[], None]) -> None:
        if tried.state is not State.RUNNING:
            with pytest.raises(AttemptLost), database(self.using).work():
                work()
            return
        with database(self.using).work():
            work()
        tried.state = State.SUCCEEDED
        self.done.add(tried.version)

    @precondition(lambda self: self.history)
    @rule(
        data=st.data(),
        state=st.sampled_from([State.FAILED, State.INTERRUPTED]),
        body_not_started=st.booleans(),
    )
    def close(self, data: Any, state: State, body_not_started: bool) -> None:
        tried = data.draw(st.sampled_from(self.history[-3:]))
        if tried.state is State.RUNNING:
            tried.state = state
            tried.retry = tried.retry or body_not_started
        assert recorder.close(tried.row, state, body_not_started=body_not_started) is tried.state

    @rule(version=VERSIONS)
    def reset(self, version: int) -> None:
        """Make pending again what is done, or what waits for a person's decision."""
        if self.standing(version) not in (Standing.DONE, Standing.HELD):
            return
        tried = self.claim(version, Trigger.RESET)
        was_done = version in self.done
        self.commit(tried, lambda: recorder.undo(tried.row, start=""))
        self.done.discard(version)
        for one in self.history:
            one.retry = one.retry or one.version == version
        if was_done:
            self.old_keys.add(self.keys.pop(version))
            tried.key = Attempt.objects.using(self.using).get(pk=tried.row.pk).key
            assert tried.key not in self.old_keys
            self.keys[version] = tried.key

    @rule(version=VERSIONS, thoroughly=st.booleans())
    def look(self, version: int, thoroughly: bool) -> None:
        (found,) = history.read([self.routine(version)], thoroughly=thoroughly).values()
        assert found.standing is self.standing(version)
        if thoroughly:
            assert found.number == len(self.history)
            assert found.has_running == any(one.state is State.RUNNING for one in self.history)

    @invariant()
    def record_is_as_the_model(self) -> None:
        rows = Attempt.objects.using(self.using).order_by("number")
        assert list(rows.values_list("number", "version", "key", "state", "retry")) == [
            (number, one.version, one.key, one.state, one.retry)
            for number, one in enumerate(self.history, start=1)
        ]
        completed = Completion.objects.using(self.using).values_list("version", flat=True)
        assert sorted(completed) == sorted(self.done)


def test_record_says_what_its_model_says(using: str) -> None:
    machine = type("Machine", (RecordMachine,), {"using": using})
    steps = settings(few, stateful_step_count=25)
    run_state_machine_as_test(machine, settings=steps)


@few
@given(calls=st.lists(st.tuples(VERSIONS, st.booleans()), max_size=6))
def test_version_runs_once_and_never_after_a_higher_one(
    using: str, calls: list[tuple[int, bool]]
) -> None:
    for model in (Anchor, Attempt, Completion, Effect):
        model._default_manager.using(using).all().delete()
    highest, done, keys = 0, set[int](), dict[int, set[str]]()
    for version, fails in calls:
        called: list[str] = []

        def body(run: Any) -> None:
            called.append(run.key)  # noqa: B023
            Effect.objects.using(using).create(name=f"v{version}")  # noqa: B023
            if fails:  # noqa: B023
                raise LookupError

        (result,) = run(seed(using, version=version, function=body))
        may_run = version >= highest and version not in done
        assert len(called) == may_run
        assert (result.outcome is Outcome.RAN) == (may_run and not fails)
        if may_run:
            highest = version
            keys.setdefault(version, set()).update(called)
            done |= set() if fails else {version}
    assert sorted(Effect.objects.using(using).values_list("name", flat=True)) == [
        f"v{version}" for version in sorted(done)
    ]
    assert all(len(own) == 1 for own in keys.values())
    assert len(set[str]().union(*keys.values())) == len(keys)
