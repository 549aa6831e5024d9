"""Waiters of one host: one of them asks, all are told, and none depends on another."""

import os
import signal
from pathlib import Path

import pytest

from tests.project import Process, Project
from tests.waiting import wait_until

pytestmark = pytest.mark.django_db(databases=[])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("body")
"""


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def shared(project: Project, tmp_path: Path) -> Path:
    """The directory of the file that the waiters of the project share."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    project.environment["TMPDIR"] = str(temporary)
    return temporary / f"once-{os.geteuid()}"


def _file(shared: Path) -> Path:
    [file] = shared.iterdir()
    return file


def _begin(project: Project, waiters: int) -> tuple[Process, list[Process]]:
    """Start a holder in its body, and its waiters; the first of them is the standby."""
    project.routines(SEED)
    holder = project.once("run")
    project.wait_for("body")
    waiting = []
    for _ in range(waiters):
        waiting.append(project.once("run"))
        waiting[-1].wait_for("Waiting")
    return holder, waiting


def _join(shared: Path, waiters: int) -> None:
    wait_until(
        lambda: shared.exists() and sum(file.stat().st_size for file in shared.iterdir()) >= waiters
    )


def _wait_for_mark(shared: Path, seconds: float = 0.0) -> None:
    """Wait until the file is marked that many seconds after now."""
    since = _file(shared).stat().st_mtime
    wait_until(lambda: _file(shared).stat().st_mtime > since + seconds)


def _sessions(project: Project) -> int:
    [(count,)] = project.rows(
        "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)


def test_one_asks_and_all_are_told(project: Project, shared: Path) -> None:
    holder, waiters = _begin(project, 4)
    _join(shared, 4)
    before = _sessions(project)
    _wait_for_mark(shared, seconds=4)
    # Each of three would have asked a dozen times, by itself.
    assert _sessions(project) - before < 12
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0] * 5
    assert project.effects() == ["seed"]
    assert not [*shared.iterdir()]


def test_each_waiter_says_for_which_process_it_waits(project: Project, shared: Path) -> None:
    holder, waiters = _begin(project, 3)
    for waiter in waiters:
        # Before the first question of its own, after at least 10 s.
        waiter.wait_for(f"pid {holder.pid}", times=3, timeout=9)
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0] * 4


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_another_waiter_asks_where_the_standby_is_frozen_or_killed(
    project: Project, shared: Path, number: signal.Signals
) -> None:
    holder, [standby, *others] = _begin(project, 3)
    _join(shared, 3)
    standby.send(number)
    _wait_for_mark(shared, seconds=3)
    project.release("body")
    assert [process.finish() for process in (holder, *others)] == [0, 0, 0]
    if number == signal.SIGSTOP:
        standby.send(signal.SIGCONT)
        assert standby.finish() == 0
    assert project.effects() == ["seed"]


def test_siblings_of_a_frozen_holder_take_over(project: Project, shared: Path) -> None:
    holder, waiters = _begin(project, 3)
    _join(shared, 3)
    holder.send(signal.SIGSTOP)
    project.wait_for("body", processes=2)
    project.release("body")
    assert [waiter.finish() for waiter in waiters] == [0, 0, 0]
    holder.send(signal.SIGCONT)
    assert holder.finish() == 0
    assert project.effects() == ["seed"]


def test_signal_ends_a_waiter_beside_siblings(project: Project, shared: Path) -> None:
    holder, [standby, other] = _begin(project, 2)
    _join(shared, 2)
    other.send(signal.SIGTERM)
    assert other.finish() == 143
    project.release("body")
    assert [holder.finish(), standby.finish()] == [0, 0]


def test_waiter_beside_siblings_keeps_its_deadline(project: Project, shared: Path) -> None:
    holder, [standby] = _begin(project, 1)
    _join(shared, 1)
    assert project.once("run", "--timeout", "1").finish() == 4
    project.release("body")
    assert [holder.finish(), standby.finish()] == [0, 0]


def test_failure_of_the_holder_is_told(project: Project, shared: Path) -> None:
    project.routines(
        """
        @routine
        def seed():
            hold("body")
            if not os.path.exists(os.environ["HANDSHAKE"] + "/failed"):
                open(os.environ["HANDSHAKE"] + "/failed", "w").close()
                raise ValueError("no")
            effect("seed")
        """
    )
    holder = project.once("run")
    project.wait_for("body")
    waiters = [project.once("run") for _ in range(3)]
    _join(shared, 3)
    project.release("body")
    assert holder.finish() == 1
    assert [waiter.finish() for waiter in waiters] == [0, 0, 0]
    assert project.effects() == ["seed"]


def test_waiters_without_a_temporary_directory_succeed(project: Project) -> None:
    project.environment["TMPDIR"] = "/proc"
    holder, waiters = _begin(project, 3)
    project.release("body")
    assert [process.finish() for process in (holder, *waiters)] == [0] * 4
    assert project.effects() == ["seed"]
