"""What the record says of a routine: how it stands, and when starting servers may try again."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from once import Routine, content
from once.models import Attempt, Completion, Now, State
from once.record import history, queries, recorder
from once.record.standing import Record, Standing
from tests.support import begin, seed, standings

pytestmark = pytest.mark.django_db(databases=["default", "sqlite"])

RUNNING, SUCCEEDED, FAILED = State.RUNNING, State.SUCCEEDED, State.FAILED
INTERRUPTED, LOST = State.INTERRUPTED, State.LOST


def tried(routine: Routine, *states: State) -> None:
    """Have an attempt end in each of the states, one after the other."""
    for state in states:
        attempt = begin(routine)
        if state is not RUNNING:
            recorder.close(attempt, state)


def read(routine: Routine) -> Record:
    return history.read([routine])[routine.name]


def complete(routine: Routine, version: int | None = None, scope_key: str | None = None) -> None:
    Completion.objects.using(routine.using).create(
        routine=routine.name,
        version=routine.version if version is None else version,
        scope_key=routine.scope_key if scope_key is None else scope_key,
    )


def age(using: str, seconds: float) -> None:
    """Have what was recorded happen that long ago, by the database's clock."""
    gone = timedelta(seconds=seconds)
    Attempt.objects.using(using).update(
        started_at=F("started_at") - gone, finished_at=F("finished_at") - gone
    )


# Standing


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("states", [[], [RUNNING], [FAILED], [LOST], [INTERRUPTED]], ids=str)
def test_what_is_completed_is_done_whatever_was_tried(
    using: str, retry: bool, states: Iterable[State]
) -> None:
    routine = seed(using, retry=retry)
    tried(routine, *states)
    complete(routine)
    assert standings(routine) == {"shop.seed": Standing.DONE}


@pytest.mark.parametrize("states", [[], [RUNNING], [FAILED], [LOST], [INTERRUPTED]], ids=str)
def test_what_may_be_retried_is_open_whatever_was_tried(
    using: str, states: Iterable[State]
) -> None:
    routine = seed(using)
    tried(routine, *states)
    assert standings(routine) == {"shop.seed": Standing.OPEN}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], Standing.OPEN),
        ([RUNNING], Standing.OPEN),  # its successor finds out how it ended
        ([SUCCEEDED], Standing.OPEN),  # that of a reset
        ([FAILED], Standing.HELD),
        ([LOST], Standing.HELD),
        ([INTERRUPTED], Standing.HELD),
        ([FAILED, RUNNING], Standing.HELD),
        ([FAILED, SUCCEEDED], Standing.HELD),
    ],
    ids=str,
)
def test_what_may_not_be_retried_is_held_once_an_attempt_went_ill(
    using: str, states: Iterable[State], expected: Standing
) -> None:
    routine = seed(using, retry=False)
    tried(routine, *states)
    assert standings(routine) == {"shop.seed": expected}
    assert history.next_attempt(routine).record.standing is expected


@pytest.mark.parametrize("state", [FAILED, LOST, INTERRUPTED])
def test_attempt_that_harmed_nothing_does_not_hold(using: str, state: State) -> None:
    routine = seed(using, retry=False)
    recorder.close(begin(routine), state, body_not_started=True)
    assert standings(routine) == {"shop.seed": Standing.OPEN}


@pytest.mark.parametrize("trigger", ["fake", "reset"])
def test_decision_that_came_to_nothing_does_not_hold(using: str, trigger: str) -> None:
    routine = seed(using, retry=False)
    attempt = recorder.begin(routine, history.next_attempt(routine), trigger)
    assert attempt is not None
    recorder.close(attempt, LOST)
    assert standings(routine) == {"shop.seed": Standing.OPEN}


def test_attempt_that_might_be_retried_does_not_hold_code_that_may_not(using: str) -> None:
    tried(seed(using, retry=True), FAILED)
    assert standings(seed(using, retry=False)) == {"shop.seed": Standing.OPEN}


def test_attempt_that_held_holds_code_that_may_retry_by_now(using: str) -> None:
    """Which of the releases that are at work decides about it would be a matter of chance."""
    tried(seed(using, retry=False), FAILED)
    assert standings(seed(using, retry=True)) == {"shop.seed": Standing.HELD}


def test_higher_version_is_not_held_by_a_lower_one(using: str) -> None:
    tried(seed(using, retry=False), FAILED)
    assert standings(seed(using, retry=False, version=2)) == {"shop.seed": Standing.OPEN}


@pytest.mark.parametrize("retry", [True, False])
@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "begun"])
def test_higher_version_supersedes_what_is_open_or_held(
    using: str, is_recorded: bool, retry: bool
) -> None:
    routine = seed(using, retry=retry)
    tried(routine, FAILED)
    if is_recorded:
        complete(routine, version=2)
    else:
        tried(seed(using, retry=retry, version=2), RUNNING)
    assert standings(routine) == {"shop.seed": Standing.SUPERSEDED}


@pytest.mark.parametrize(
    ("is_recorded", "expected"), [(True, Standing.SUPERSEDED), (False, Standing.DONE)]
)
def test_done_is_superseded_by_what_is_recorded_and_not_by_what_began(
    using: str, is_recorded: bool, expected: Standing
) -> None:
    """An older replica that asks has what it needs."""
    routine = seed(using)
    complete(routine)
    if is_recorded:
        complete(routine, version=2)
    else:
        tried(seed(using, version=2), FAILED)
    assert standings(routine) == {"shop.seed": expected}


# Scope keys


def test_release_is_done_for_itself_only(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    routine = seed(using, scope="release")
    seen: dict[str, Standing] = {}
    complete(routine, scope_key="2024.1")
    for release in ("2024.1", "2024.2"):
        monkeypatch.setenv("ONCE_RELEASE", release)
        seen |= {release: read(routine).standing}
    assert seen == {"2024.1": Standing.DONE, "2024.2": Standing.OPEN}


def test_release_is_not_held_by_another_one(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    routine = seed(using, scope="release", retry=False)
    monkeypatch.setenv("ONCE_RELEASE", "2024.1")
    tried(routine, FAILED)
    assert read(routine).standing is Standing.HELD
    monkeypatch.setenv("ONCE_RELEASE", "2024.2")
    assert read(routine).standing is Standing.OPEN
    assert read(routine).retry_in == 0


def test_releases_count_their_attempts_together_and_share_no_key(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routine = seed(using, scope="release")
    made = []
    for release in ("2024.1", "2024.2"):
        monkeypatch.setenv("ONCE_RELEASE", release)
        made.append(begin(routine))
        recorder.close(made[-1], FAILED)
    first, second = made
    assert (first.number, second.number) == (1, 2)
    assert (first.scope_key, second.scope_key) == ("2024.1", "2024.2")
    assert first.key != second.key


def test_content_is_done_for_each_of_its_states(using: str) -> None:
    one = seed(using, scope=content("conftest.py"))
    other = seed(using, scope=content("support.py"))
    assert one.scope_key != other.scope_key
    complete(one)
    assert standings(one) == {"shop.seed": Standing.DONE}
    assert standings(other) == {"shop.seed": Standing.OPEN}
    complete(other)
    assert standings(one) == {"shop.seed": Standing.DONE}  # reverted files do not run again


def test_lower_version_of_a_release_is_superseded_by_any_release(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "2024.2")
    tried(seed(using, scope="release", version=2), RUNNING)
    monkeypatch.setenv("ONCE_RELEASE", "2024.1")
    assert standings(seed(using, scope="release")) == {"shop.seed": Standing.SUPERSEDED}


# What was tried


def test_nothing_tried_is_nothing_known(using: str) -> None:
    tried(seed(using, "shop.other"), FAILED)
    assert read(seed(using)) == Record(standing=Standing.OPEN)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([LOST], 1),
        ([RUNNING], 1),
        ([LOST, LOST, RUNNING], 3),
        ([LOST, FAILED], 0),
        ([LOST, INTERRUPTED], 0),
        ([LOST, SUCCEEDED], 0),
        ([LOST, LOST, INTERRUPTED, LOST], 1),
        ([FAILED, LOST, LOST], 2),
    ],
    ids=str,
)
def test_attempts_lost_in_a_row_are_counted(
    using: str, states: Iterable[State], expected: int
) -> None:
    routine = seed(using)
    tried(routine, *states)
    assert read(routine).lost_in_a_row == expected


def test_attempts_lost_in_a_row_are_those_of_all_versions(using: str) -> None:
    """The cause may be a server that is too slow for the liveness timeout."""
    tried(seed(using), LOST)
    tried(seed(using, version=2), LOST)
    assert read(seed(using, version=2)).lost_in_a_row == 2


@pytest.mark.parametrize("state", State)
def test_number_and_whether_it_runs_are_those_of_the_last_attempt(using: str, state: State) -> None:
    tried(seed(using), FAILED, state)
    found = read(seed(using, version=2))
    assert (found.number, found.is_running) == (2, state is RUNNING)


# The delay of starting servers


def retry_in(routine: Routine) -> float:
    """Seconds to wait, as the record says in both of its ways."""
    found = read(routine)
    assert (found.retry_at is None) is (found.retry_in == 0)
    if found.retry_at is not None:
        now: Any = Attempt.objects.using(routine.using).annotate(now=Now()).latest("number").now
        assert (found.retry_at - now).total_seconds() == pytest.approx(found.retry_in, abs=5)
    return found.retry_in


@pytest.mark.parametrize("days", [-1, 1], ids=["back", "forward"])
def test_clock_that_is_set_delays_nothing(
    using: str, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails by the new clock is delayed as ever."""
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    routine = seed(using)
    tried(routine, FAILED)
    age(using, days * 86_400)  # what was recorded lies in the future once the clock is set back
    assert retry_in(routine) == 0
    tried(routine, FAILED)
    assert retry_in(routine) == pytest.approx(200, abs=10)


@pytest.mark.parametrize(
    ("states", "delays"),
    [
        ([], 0),
        ([FAILED], 1),
        ([FAILED, FAILED], 2),
        ([FAILED, FAILED, FAILED], 4),
        ([LOST], 0),
        ([RUNNING], 0),
        ([LOST, LOST], 1),
        ([LOST, RUNNING], 1),
        ([LOST, LOST, LOST], 2),
        ([LOST, FAILED], 2),
        ([FAILED, LOST], 1),
        ([FAILED, INTERRUPTED], 0),
        ([FAILED, SUCCEEDED], 0),
        ([FAILED, FAILED, INTERRUPTED, FAILED], 1),
        ([LOST, SUCCEEDED, LOST], 0),
    ],
    ids=str,
)
def test_delay_doubles_with_each_attempt_in_a_row_that_went_ill(
    using: str, monkeypatch: pytest.MonkeyPatch, states: Iterable[State], delays: int
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    tried(seed(using), *states)
    assert retry_in(seed(using)) == pytest.approx(100 * delays, abs=10)


@pytest.mark.parametrize(
    ("delay", "failures", "expected"),
    [
        ("100", 6, 3200),
        ("100", 7, 3600),
        ("100", 40, 3600),
        ("7200", 1, 7200),
        ("7200", 9, 7200),
        ("0", 9, 0),
    ],
)
def test_delay_is_capped_at_an_hour_or_at_the_setting(
    using: str, monkeypatch: pytest.MonkeyPatch, delay: str, failures: int, expected: float
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", delay)
    tried(seed(using), *[FAILED] * failures)
    assert retry_in(seed(using)) == pytest.approx(expected, abs=10)


@pytest.mark.parametrize(("gone", "expected"), [(50, 50), (101, 0), (10_000, 0)])
def test_delay_passes_by_the_clock_of_the_database(
    using: str, monkeypatch: pytest.MonkeyPatch, gone: float, expected: float
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    tried(seed(using), FAILED)
    age(using, gone)
    assert retry_in(seed(using)) == pytest.approx(expected, abs=10)


def test_delay_counts_from_the_start_of_an_attempt_without_an_end(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    tried(seed(using), LOST, RUNNING)
    age(using, 60)
    assert retry_in(seed(using)) == pytest.approx(40, abs=5)


def test_delay_is_that_of_the_version_itself(using: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    tried(seed(using), FAILED, FAILED)
    assert retry_in(seed(using, version=2)) == 0
    tried(seed(using, version=2), FAILED)
    assert retry_in(seed(using, version=2)) == pytest.approx(100, abs=10)


@pytest.mark.parametrize("retry", [True, False])
def test_nothing_is_delayed_but_what_is_open(
    using: str, monkeypatch: pytest.MonkeyPatch, retry: bool
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "100")
    routine = seed(using, retry=retry)
    tried(routine, FAILED)
    if retry:
        complete(routine, version=2)
    assert read(routine).standing is (Standing.SUPERSEDED if retry else Standing.HELD)
    assert retry_in(routine) == 0


# Queries


def test_queries_do_not_grow_with_the_number_of_routines() -> None:
    routines = [seed(using, f"{using}{one}") for using in ("default", "sqlite") for one in range(9)]
    for routine in routines[:-9]:
        complete(routine)
    tried(routines[-1], FAILED, LOST, RUNNING)
    with (
        CaptureQueriesContext(connections["default"]) as done,
        CaptureQueriesContext(connections["sqlite"]) as unsure,
    ):
        history.read(routines)
    # The third: SQLite may have lost attempts that had to stay. The last: one has a delay.
    assert (len(done), len(unsure)) == (1, 5)


def test_long_history_makes_no_long_answer(using: str) -> None:
    routine = seed(using)
    tried(routine, *[FAILED] * 30)
    found = queries.attempted(using, [routine])
    assert [len(rows) for rows in found.values()] == [1]
    assert found["shop.seed"][0].number == 30


# The last failure


def test_last_failure_is_that_of_this_completion(using: str) -> None:
    routine = seed(using)
    assert history.last_failures(using, [routine]) == {}
    tried(routine, FAILED, LOST, INTERRUPTED)
    tried(seed(using, version=2), FAILED)
    tried(seed(using, "shop.other"), FAILED)
    found = history.last_failures(using, [routine]).get(routine.name)
    assert found is not None
    assert (found.number, found.state) == (2, LOST)


def test_last_failure_may_be_an_interruption_that_holds(using: str) -> None:
    routine = seed(using, retry=False)
    tried(routine, FAILED, INTERRUPTED)
    found = history.last_failures(using, [routine]).get(routine.name)
    assert found is not None
    assert found.number == 2
