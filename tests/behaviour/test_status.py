"""What is shown of the record, where more than one alias leads to it."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections

from once import Routine
from once.admin.rows import Row
from once.databases import database
from once.doctor.deployment import Deployment, Level
from once.doctor.record_probes import routines
from once.models import Completion, State
from once.record import recorder
from once.routines.names import CALL
from once.routines.registry import Registry
from once.status.state import RoutineState, Status
from once.status.survey import statuses
from tests.support import begin, lacking_migrations, rows, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture
def replica() -> Iterator[str]:
    """An alias that shows what ``default`` holds, and comes before it in the alphabet."""
    alias = "a_replica"
    connections[alias] = connections["default"].copy(alias)
    yield alias
    connections[alias].close()
    del connections[alias]


def test_command_that_a_replica_shows_as_well_is_the_primarys(replica: str) -> None:
    run(seed("default", f"{CALL}prices"))
    (shown,) = statuses(Registry([]), databases=[replica, "default"])
    assert (shown.name, shown.kind, shown.database) == ("call:prices", "call", "default")


def test_routine_of_nobody_is_not_shown_of_a_replica_alone(replica: str) -> None:
    run(seed("default", "gone.routine"), seed("default", f"{CALL}prices"))
    assert [one.name for one in statuses(Registry([]), databases=[replica])] == ["call:prices"]


def first(using: str, **options: Any) -> Routine:
    return seed(using, "shop.first", **options)


def behind(*routines: Routine) -> list[Status]:
    """How those stand that come after the first of some routines."""
    return statuses(Registry(routines), databases=["default", "sqlite"])[1:]


def chain(using: str, **options: Any) -> list[Routine]:
    before = first(using, **options)
    return [
        before,
        seed(using, "shop.next", after=[before]),
        seed(using, "shop.last", after=["shop.next"]),
    ]


def failed(using: str) -> list[Routine]:
    routines = chain(using)
    recorder.close(begin(routines[0]), State.FAILED, "LookupError: no such currency")
    return routines


def held(using: str) -> list[Routine]:
    routines = chain(using, retry=False)
    recorder.close(begin(routines[0]), State.LOST)
    return routines


def overtaken(using: str) -> list[Routine]:
    recorder.close(begin(first(using, version=2)), State.FAILED, "LookupError")
    return chain(using)


@pytest.mark.parametrize(
    ("begun", "why"),
    [
        (failed, "failed"),
        (held, "is held"),
        (overtaken, "was begun by newer code, and is not done yet"),
    ],
)
def test_pending_behind_what_stands_still_says_for_which_it_waits(
    using: str, begun: Callable[[str], list[Routine]], why: str
) -> None:
    for one in behind(*begun(using)):
        assert (one.state, one.waits_for) == (RoutineState.PENDING, "shop.first")
        assert one.message == f"Waits for shop.first, which {why}."
        assert Row(status=one, runs_at_startup=True).next_step == one.message


@pytest.mark.parametrize("using", ["default"])
def test_pending_behind_what_runs_says_where_that_is(using: str) -> None:
    routines = chain(using)
    attempt = begin(routines[0])
    with database(using).lock("shop.first", 15.0) as lock:
        take(lock)
        (one, _) = behind(*routines)
    assert one.message == (
        f"Waits for shop.first, which is run on {attempt.host} (pid {attempt.pid})."
    )


def test_pending_behind_what_is_blocked_says_so() -> None:
    with lacking_migrations("default"):
        (one,) = behind(first("default"), seed("sqlite", "shop.next", after=["shop.first"]))
    assert one.message == "Waits for shop.first, which is blocked."


def test_what_was_left_half_way_waits_too(using: str) -> None:
    routines = failed(using)
    begin(routines[1])
    (one, _) = behind(*routines)
    assert str(one.message).endswith("ended without a word. Waits for shop.first, which failed.")


def test_pending_behind_what_is_done_or_about_to_run_waits_for_nothing(using: str) -> None:
    routines = chain(using)
    assert [one.waits_for for one in behind(*routines)] == [None, None]
    Completion.objects.using(using).create(routine="shop.first", version=2)
    assert [one.message for one in behind(*routines)] == [None, None]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("left", "retry", "state", "finding"),
    [
        (False, True, "pending", "lock"),
        (True, True, "pending", "lock"),
        (True, False, "held", "held"),
    ],
)
def test_lock_that_a_foreign_session_holds_is_named_with_its_remedy(
    declared: list[Routine], left: bool, retry: bool, state: str, finding: str
) -> None:
    """Also where a process died, and left its attempt running."""
    declared.append(seed("default", atomic=retry, retry=retry))
    if left:
        begin(declared[0])
    # Any role may take any advisory lock: here, that of the routine, by a plain session.
    with database("default").lock("shop.seed", 15.0) as lock, ExitStack() as ends:
        take(lock)
        [(classid, objid)] = rows(
            "default",
            "SELECT classid::bigint, objid::bigint FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND application_name LIKE %s",
            [f"%pid {os.getpid()})%"],
        )
        foreign = connections["default"].copy()
        ends.callback(foreign.close)
        lock.release()
        with foreign.cursor() as cursor:
            cursor.execute("SET application_name = 'psql'")
            cursor.execute(
                "SELECT pg_advisory_lock((%s::bigint << 32) | %s::bigint)", [classid, objid]
            )
            cursor.execute("SELECT pg_backend_pid(), session_user")
            pid, role = cursor.fetchone()
        holder = f"a session that is none of once (pid {pid}, role {role}, application 'psql')"
        remedy = f"SELECT pg_terminate_backend({pid})"
        (one,) = statuses(Registry(declared), databases=["default", "sqlite"])
        assert (one.state, f"Its lock is taken by {holder}" in str(one.message)) == (state, True)
        assert remedy in str(one.message)
        (result,) = run(*declared, wait=False)
        assert result.message.startswith(f"shop.seed is run by {holder}")
        deployment = Deployment(database=database("default"), registry=Registry(declared))
        [found] = [one for one in routines(deployment) if one.id == finding]
        assert (found.level, remedy in found.hint) == (Level.WARNING, True)
