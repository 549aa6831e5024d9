"""Batches between real processes: each commits once, and who comes next goes on after the last."""

import random
import re
import signal
import sys
from collections import Counter

import psycopg
import pytest

from tests.project import LIVENESS, Process, Project
from tests.waiting import GRACE, wait_until

#: Runs a command in a terminal of a size, and passes on what it prints.
IN_TERMINAL = """
import os, pty, sys
size, *command = sys.argv[1:]
sized = ["sh", "-c", f'stty {size} && exec "$@"', "sh", *command]
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sized)))
"""


def counting(*, batch_size: int = 10, hold_at: int = 0, **options: object) -> str:
    """A routine that adds one to every row; it holds in the batch that begins with a row."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"""
        from django.db.models import F
        from tests.shop.models import Counted


        @routine(over=Counted.objects.all, batch_size={batch_size}{given})
        def count(rows):
            keys = [row.pk for row in rows]
            Counted.objects.filter(pk__in=keys).update(counter=F("counter") + 1)
            effect(batch(keys[0], keys[-1]))
            if keys[0] == {hold_at}:
                hold("batch")


        def batch(first, last):
            return f"{{first:06}}-{{last:06}}"
    """


def fill(project: Project, rows: int) -> None:
    """Make the rows 1, 2, 3 that none has counted."""
    project.execute(
        "INSERT INTO shop_counted (id, counter) WITH RECURSIVE n (i) AS "
        f"(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) SELECT i, 0 FROM n"
    )


def counters(project: Project) -> list[tuple[int, int]]:
    """Each value of a counter, and how many rows have it."""
    return project.rows("SELECT counter, count(*) FROM shop_counted GROUP BY counter ORDER BY 1")


def batches(rows: int, size: int = 10) -> list[str]:
    """The effects of every batch of so many rows, each once."""
    return [f"{first:06}-{first + size - 1:06}" for first in range(1, rows + 1, size)]


def latest(project: Project) -> tuple[int, int]:
    """Number of the last attempt, and how many rows it and those before it have done."""
    sql = "SELECT number, processed FROM once_attempt ORDER BY number DESC LIMIT 1"
    found: list[tuple[int, int]] = project.rows(sql)
    return found[0] if found else (0, 0)


def states(project: Project) -> list[str]:
    """How the attempts stand, in their order."""
    return [state for *_, state in project.attempts()]


def wait_until_latest(project: Project, number: int, processed: int = 0) -> float:
    """Wait until an attempt has begun, and come so far; the seconds it took."""
    return wait_until(
        lambda: latest(project) >= (number, processed),
        what=lambda: f"attempt {number} at {processed}, not {project.attempts()[-1:]}",
    )


def assert_each_once(project: Project, rows: int, size: int = 10) -> None:
    """Compare what exists with what should, and what the history says with what its bodies did."""
    assert counters(project) == [(1, rows)]
    assert project.effects() == batches(rows, size)
    assert project.completions() == ["plant.count"]
    [last] = project.rows(
        "SELECT state, processed, total FROM once_attempt ORDER BY number DESC LIMIT 1"
    )
    assert last == ("succeeded", rows, rows)
    by_pid = Counter(pid for (pid,) in project.rows("SELECT pid FROM shop_effect"))
    own = project.rows("SELECT pid, processed - resumed FROM once_attempt")
    assert {pid: done for pid, done in own if done} == {
        pid: size * count for pid, count in by_pid.items()
    }


class Chance:
    """Random moments at which to kill, so that all of them come before the end."""

    def __init__(self, project: Project, rows: int, kills: int, size: int) -> None:
        fill(project, rows)
        # Who is killed late, since the test was slow, waits in the last batch.
        project.routines(counting(batch_size=size, hold_at=rows - size + 1))
        self._project = project
        seed = random.randrange(2**32)
        print(f"seed {seed}")  # pytest shows it where the test fails
        self._random = random.Random(seed)
        self._rows, self._kills, self._size = rows, kills, size

    def wait(self, number: int) -> None:
        """Wait until an attempt has begun, or did some batches of those that are left."""
        project = self._project
        [(done,)] = project.rows("SELECT coalesce(max(processed), 0) FROM once_attempt")
        left = (self._rows - int(done)) // self._size
        some = self._random.randint(0, left // (self._kills - number + 2))
        wait_until_latest(project, number, int(done) + some * self._size if some else 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "rows", "kills"),
    [
        ("postgresql", 20_000, 5),
        ("pgbouncer", 20_000, 5),
        ("mariadb", 20_000, 5),
        ("sqlite", 20_000, 5),
    ],
)
def test_killed_at_random_moments(project: Project, rows: int, kills: int) -> None:
    size = 500
    chance = Chance(project, rows, kills, size)
    for number in range(1, kills + 1):
        runner = project.once("run")
        chance.wait(number)
        runner.kill()
    project.release("batch")
    last = project.once("run")
    assert last.finish() == 0, last.output
    assert_each_once(project, rows, size)
    assert states(project) == ["lost"] * kills + ["succeeded"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "rows", "kills", "runners"),
    [
        ("postgresql", 100_000, 20, 3),
        ("pgbouncer", 20_000, 5, 3),
        ("mariadb", 20_000, 5, 3),
        ("sqlite", 20_000, 5, 2),
    ],
)
def test_holder_killed_while_others_compete(
    project: Project, rows: int, kills: int, runners: int
) -> None:
    size = 500
    chance = Chance(project, rows, kills, size)
    running: dict[int, Process] = {}

    def start() -> None:
        process = project.once("run")
        running[process.pid] = process

    for _ in range(runners):
        start()
    for number in range(1, kills + 1):
        chance.wait(number)
        [(holder,)] = project.rows(f"SELECT pid FROM once_attempt WHERE number = {number}")
        running.pop(holder).kill()
        start()
    project.release("batch")
    for process in running.values():
        assert process.finish() == 0, process.output
    assert_each_once(project, rows, size)
    assert states(project) == ["lost"] * kills + ["succeeded"]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
@pytest.mark.parametrize("when", ["step", "after:step"], ids=["before", "after"])
@pytest.mark.parametrize("write", ["resume", "advance", "complete"])
def test_killed_beside_a_write_of_its_progress(project: Project, write: str, when: str) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11))
    runner = project.once("run")
    project.wait_for("batch")
    runner.kill()  # with the first batch behind it
    project.release("batch")
    runner = project.once("run", TEST_HOLD=f"once.record.recorder:{write}={when}")
    project.wait_for("step")
    runner.kill()
    last = project.once("run")
    assert last.finish() == 0, last.output
    assert_each_once(project, 30)
    assert states(project) == ["lost", "lost", "succeeded"]


SIGNALS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["SIGTERM", "SIGINT"],
)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@SIGNALS
def test_signal_in_a_batch_ends_after_it(
    project: Project, number: signal.Signals, code: int
) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11))
    errors = project.directory / "stderr"
    command = f'exec "$0" -m tests.manage once run 2> {errors}'
    runner = project.start("sh", "-c", command, sys.executable)
    project.wait_for("batch")
    runner.send(number)
    wait_until(lambda: "second signal" in errors.read_text())
    assert "first the batch in hand" in errors.read_text()
    assert "A second signal ends at once." in errors.read_text()
    assert states(project) == ["running"]
    project.release("batch")
    assert runner.finish() == code, runner.output
    assert "INTERRUPTED" in runner.output
    assert counters(project) == [(0, 10), (1, 20)]
    assert states(project) == ["interrupted"]
    assert latest(project) == (1, 20)
    after = project.once("run")
    assert after.finish() == 0, after.output
    assert project.reached("batch") == [runner.pid]
    assert_each_once(project, 30)
    assert states(project) == ["interrupted", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_second_signal_in_a_batch_ends_at_once(project: Project, second: signal.Signals) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11))
    runner = project.once("run")
    project.wait_for("batch")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")

    def has_ended() -> bool:
        runner.send(second)  # until it is no echo of the first any more
        return not runner.is_running()

    wait_until(has_ended)
    assert runner.finish() == -second, runner.output
    assert counters(project) == [(0, 20), (1, 10)]
    project.release("batch")
    after = project.once("run")
    assert after.finish() == 0, after.output
    assert project.reached("batch") == sorted([runner.pid, after.pid])
    assert_each_once(project, 30)
    assert states(project) == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_in_the_last_batch_leaves_nothing_to_do(project: Project) -> None:
    fill(project, 15)
    project.routines(counting(hold_at=11))
    runner = project.once("run")
    project.wait_for("batch")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release("batch")
    assert runner.finish() == 143, runner.output
    assert counters(project) == [(1, 15)]
    assert project.completions() == ["plant.count"]
    assert states(project) == ["succeeded"]


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@pytest.mark.parametrize(
    ("number", "code", "retry"),
    [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, True), (signal.SIGTERM, 143, False)],
    ids=["SIGTERM", "SIGINT", "no-retry"],
)
def test_signal_in_a_pause_ends_at_once_and_holds_nothing(
    project: Project, number: signal.Signals, code: int, retry: bool
) -> None:
    fill(project, 30)
    project.routines(counting(rest=120, retry=retry))
    runner = project.once("run")
    wait_until_latest(project, 1, 10)
    runner.send(number)
    assert runner.finish() == code, runner.output
    assert states(project) == ["interrupted"]
    shown = project.status()["plant.count"]
    assert (shown["state"], shown["processed"]) == ("pending", 10)
    project.routines(counting(retry=retry))
    after = project.once("run")
    assert after.finish() == 0, after.output
    assert_each_once(project, 30)
    assert states(project) == ["interrupted", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_batch_that_may_not_be_repeated_is_held_where_its_process_died(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=11, retry=False))
    runner = project.once("run")
    project.wait_for("batch")
    runner.kill()
    project.release("batch")
    after = project.once("run")
    assert after.finish() == 5, after.output
    assert project.reached("batch") == [runner.pid]
    assert counters(project) == [(0, 20), (1, 10)]
    reset = project.once("reset", "plant.count", "--no-input")
    assert reset.finish() == 0, reset.output
    last = project.once("run")
    assert last.finish() == 0, last.output
    assert_each_once(project, 30)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_signal_to_who_waits_ends_at_once(project: Project) -> None:
    fill(project, 10)
    project.routines(counting(hold_at=1))
    holder = project.once("run")
    project.wait_for("batch")
    waiter = project.once("run")
    waiter.wait_for("Waiting")
    waiter.send(signal.SIGTERM)
    assert waiter.finish() == 143, waiter.output
    project.release("batch")
    assert holder.finish() == 0, holder.output
    assert states(project) == ["succeeded"]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer"])
def test_signal_to_who_cannot_fence_its_predecessor_ends_at_once(project: Project) -> None:
    fill(project, 20)
    project.routines(counting(hold_at=11))
    killed = project.once("run")
    project.wait_for("batch")
    killed.kill()
    project.release("batch")
    with psycopg.connect(project.admin_url) as session:
        session.execute("SELECT FROM once_attempt FOR UPDATE")
        waiter = project.once("run")
        waiter.wait_for("is locked by a session")
        waiter.send(signal.SIGTERM)
        assert waiter.finish() == 143, waiter.output
    assert counters(project) == [(0, 10), (1, 10)]
    after = project.once("run")
    assert after.finish() == 0, after.output
    assert_each_once(project, 20)
    # More than one where its lock made way, which it does after a second or more.
    first, *between, last = states(project)
    assert (first, {*between}, last) == ("lost", {"interrupted"}, "succeeded")


EXTERNAL = """
    @routine(atomic=False)
    def announce(run):
        hold("body")
        {check}
        effect("announced")
"""


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
@SIGNALS
def test_signal_in_an_external_body_lets_it_end(
    project: Project, number: signal.Signals, code: int
) -> None:
    project.routines(EXTERNAL.format(check=""))
    runner = project.once("run")
    project.wait_for("body")
    runner.send(number)
    runner.wait_for("the body whose effects are outside, comes to its end")
    assert states(project) == ["running"]
    project.release("body")
    assert runner.finish() == code, runner.output
    assert project.effects() == ["announced"]
    assert project.completions() == ["plant.announce"]
    assert states(project) == ["succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_is_told_to_an_external_body_that_asks(project: Project) -> None:
    project.routines(EXTERNAL.format(check="run.check()"))
    runner = project.once("run")
    project.wait_for("body")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release("body")
    assert runner.finish() == 143, runner.output
    assert project.effects() == []
    assert states(project) == ["interrupted"]
    after = project.once("run")
    assert after.finish() == 0, after.output
    assert project.effects() == ["announced"]
    assert states(project) == ["interrupted", "succeeded"]
    assert len(project.rows('SELECT DISTINCT "key" FROM once_attempt')) == 1


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_is_told_to_an_async_body_that_asks(project: Project) -> None:
    project.routines(
        """
        @routine
        async def announce(run):
            await Effect.objects.acreate(name="first")
            hold("body")
            run.check()
        """
    )
    runner = project.once("run")
    project.wait_for("body")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release("body")
    assert runner.finish() == 143, runner.output
    assert project.effects() == []
    assert states(project) == ["interrupted"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_in_an_async_body_lets_it_end(project: Project) -> None:
    """Its thread cannot be broken off, and it needs the main thread for its queries."""
    project.routines(
        """
        @routine
        async def seed():
            await Effect.objects.acreate(name="first")
            hold("body")
            await Effect.objects.acreate(name="second")
        """
    )
    runner = project.once("run")
    project.wait_for("body")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release("body")
    assert runner.finish() == 143, runner.output
    assert project.effects() == ["first", "second"]
    assert states(project) == ["succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_that_a_body_caught_ends_the_run_all_the_same(project: Project) -> None:
    project.routines(
        """
        @routine(atomic=False)
        def announce(run):
            hold("body")
            try:
                run.check()
            except KeyboardInterrupt:
                effect("tidied up")


        @routine
        def behind():
            effect("behind")
        """
    )
    runner = project.once("run")
    project.wait_for("body")
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release("body")
    assert runner.finish() == 143, runner.output
    assert project.effects() == ["tidied up"]


def status_lines(project: Project) -> str:
    """What ``once status`` prints."""
    process = project.once("status")
    assert process.finish() == 0, process.output
    return process.output


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_progress_is_shown_to_everybody(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=21))
    runner = project.once("run")
    project.wait_for("batch")
    shown = project.status()["plant.count"]
    assert [shown[name] for name in ("state", "pid", "processed", "total")] == [
        "running",
        runner.pid,
        20,
        30,
    ]
    assert shown["rate"] > 0
    assert shown["seconds_left"] == pytest.approx(10 / shown["rate"], abs=0.1)
    running = rf"running  since .* \(pid {runner.pid}\)"
    progress = r"20 of 30 \(67%\), [\d,]+/s, [\d,]+s left"
    assert re.search(f"{running}.*  {progress}", status_lines(project))

    runner.kill()
    shown = project.status()["plant.count"]
    assert [shown[name] for name in ("state", "processed", "total")] == ["pending", 20, 30]
    assert "without a word" in status_lines(project)

    runner = project.once("run")
    project.wait_for("batch", processes=2)
    shown = project.status()["plant.count"]
    assert [shown[name] for name in ("state", "pid", "processed", "total")] == [
        "running",
        runner.pid,
        20,
        30,
    ]
    assert (shown["rate"], shown["seconds_left"]) == (None, None)  # it has done nothing itself
    project.release("batch")
    assert runner.finish() == 0, runner.output
    shown = project.status()["plant.count"]
    assert [shown[name] for name in ("state", "processed", "total")] == ["completed", 30, 30]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_no_time_is_left_where_nobody_runs(project: Project) -> None:
    fill(project, 30)
    project.routines(counting(hold_at=21))
    runner = project.once("run")
    project.wait_for("batch")
    runner.kill()
    shown = project.status()["plant.count"]
    assert (shown["state"], shown["seconds_left"]) == ("pending", None)
    assert "s left" not in status_lines(project)


def in_terminal(project: Project, size: str = "rows 24 cols 100") -> Process:
    """Start ``once run`` in a terminal."""
    command = (sys.executable, "-m", "tests.manage", "once", "run")
    return project.start(sys.executable, "-c", IN_TERMINAL, size, *command)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_bar_in_a_terminal(project: Project) -> None:
    fill(project, 50)
    project.routines(counting(hold_at=41, rest=0.2))  # tqdm draws ten times a second at most
    runner = in_terminal(project)
    project.wait_for("batch")
    runner.wait_for("80%")
    assert re.search(r"plant\.count:  80%\|\S+ *\| 40\.0/50\.0 \[", runner.output), runner.output
    project.release("batch")
    assert runner.finish() == 0, runner.output
    assert re.search(r"plant\.count: 100%\|\S+\| 50\.0/50\.0 \[", runner.output), runner.output
    assert "of 50" not in runner.output


@pytest.mark.parametrize("kind", ["postgresql"])
def test_bar_in_a_terminal_without_a_size(project: Project) -> None:
    """Such as that of a container with ``tty: true`` to which nobody is attached."""
    fill(project, 50)
    project.routines(counting(hold_at=41, rest=0.2))
    runner = in_terminal(project, "rows 0 cols 0")
    project.wait_for("batch")
    runner.wait_for("80%")


@pytest.mark.parametrize("kind", ["postgresql"])
def test_bar_shows_the_first_batch(project: Project) -> None:
    fill(project, 50)
    project.routines(counting(hold_at=11))
    runner = in_terminal(project)
    project.wait_for("batch")
    runner.wait_for("20%")


@pytest.mark.parametrize("kind", ["postgresql"])
def test_lines_without_a_terminal(project: Project) -> None:
    fill(project, 40)
    project.routines(counting(rest=5.1))  # two pauses last as long as from one line to the next
    runner = project.once("run")
    runner.wait_for("30 of 40")
    assert re.search(r"^    30 of 40 \(75%\), [23]/s, [34]s left$", runner.output, re.M)
    assert "of 40" not in runner.output.replace("30 of 40", "")
    assert "|" not in runner.output
    runner.send(signal.SIGTERM)
    assert runner.finish() == 143, runner.output


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize(
    ("over", "total"),
    [("lambda: list('abcdefg')", 7), ("lambda: open(__file__ + '.txt')", None)],
    ids=["list", "file"],
)
def test_items_go_on_by_position(project: Project, over: str, total: int | None) -> None:
    items = list("abcdefg")
    project.routines(
        f"""
        @routine(over={over}, batch_size=2)
        def load(lines):
            for line in lines:
                effect(line.strip())
            if lines[0].strip() == "e":
                hold("batch")
        """
    )
    (project.directory / "plant" / "routines.py.txt").write_text("\n".join(items))
    killed = project.once("run")
    project.wait_for("batch")
    assert project.effects() == items[:4]
    shown = project.status()["plant.load"]
    assert (shown["processed"], shown["total"]) == (4, total)
    killed.kill()
    project.release("batch")
    after = project.once("run")
    assert after.finish() == 0, after.output
    made = project.rows("SELECT name, pid FROM shop_effect ORDER BY id")
    pids = [killed.pid] * 4 + [after.pid] * 3
    assert made == list(zip(items, pids, strict=True))
    assert states(project) == ["lost", "succeeded"]
    assert latest(project) == (2, 7)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_iterator_of_a_queryset_works_or_is_refused(project: Project) -> None:
    fill(project, 3000)  # more than it reads at a time
    source = counting(batch_size=1000)
    project.routines(source.replace("Counted.objects.all", "lambda: Counted.objects.iterator()"))
    runner = project.once("run")
    assert runner.finish() == 0 or "over= of plant.count" in runner.output, runner.output


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_frozen_in_a_batch(project: Project) -> None:
    fill(project, 40)
    project.routines(counting(hold_at=11))
    frozen = project.once("run")
    project.wait_for("batch")
    successor = project.once("run")
    successor.wait_for("Waiting")
    frozen.send(signal.SIGSTOP)
    assert project.wait_for("batch", processes=2) < LIVENESS + GRACE
    project.release("batch")
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 0, frozen.output
    assert "lost its right to commit" in frozen.output
    assert successor.finish() == 0, successor.output
    assert_each_once(project, 40)
    assert states(project) == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_frozen_in_a_pause(project: Project) -> None:
    fill(project, 40)
    project.routines(counting(hold_at=1, rest=1))
    frozen = project.once("run")
    project.wait_for("batch")
    successor = project.once("run")
    successor.wait_for("Waiting")
    project.release("batch")
    wait_until_latest(project, 1, 10)
    frozen.send(signal.SIGSTOP)
    assert wait_until_latest(project, 2, 20) < LIVENESS + GRACE
    frozen.send(signal.SIGCONT)
    # In mid-batch it would fail. Here it broke nothing off, so it waits for its successor.
    assert frozen.finish() == 0, frozen.output
    assert "lost its right to commit" in frozen.output
    assert "done by another process" in frozen.output
    assert successor.finish() == 0, successor.output
    assert_each_once(project, 40)
    assert states(project) == ["lost", "succeeded"]


def taken_over_as_a_batch_begins(project: Project) -> tuple[Process, Process]:
    """A process that is frozen before its batch has a right to commit, and its successor in it."""
    fill(project, 30)
    project.routines(counting(hold_at=1))
    frozen = project.once("run", TEST_HOLD="once.record.recorder:lock_attempt=step")
    project.wait_for("step")
    frozen.send(signal.SIGSTOP)
    successor = project.once("run")
    project.wait_for("batch")
    return frozen, successor


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_frozen_as_a_batch_begins(project: Project) -> None:
    frozen, successor = taken_over_as_a_batch_begins(project)
    frozen.send(signal.SIGCONT)
    project.release("step")
    frozen.wait_for("lost its right to commit")
    project.release("batch")
    assert successor.finish() == 0, successor.output
    assert frozen.finish() == 0, frozen.output
    assert project.reached("batch") == [successor.pid]
    assert_each_once(project, 30)
    assert states(project) == ["lost", "succeeded"]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_signal_in_a_batch_that_another_took_over(project: Project) -> None:
    frozen, successor = taken_over_as_a_batch_begins(project)
    frozen.send(signal.SIGTERM)
    frozen.send(signal.SIGCONT)
    frozen.wait_for("A second signal ends at once.")
    project.release("step")
    assert frozen.finish() == 143, frozen.output
    project.release("batch")
    assert successor.finish() == 0, successor.output
    assert_each_once(project, 30)


@pytest.mark.parametrize("kind", ["postgresql"])
def test_pause_is_longer_than_a_session_may_be_idle(project: Project) -> None:
    [(name,)] = project.rows("SELECT current_database()")
    project.execute(f"ALTER DATABASE {name} SET idle_session_timeout = '500ms'")
    fill(project, 15)
    project.routines(counting(rest=1.5))
    runner = project.once("run")
    assert runner.finish() == 0, runner.output
    assert counters(project) == [(1, 15)]
    assert states(project) == ["succeeded"]
