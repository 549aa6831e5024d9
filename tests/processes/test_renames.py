"""``renamed_from`` in real processes: the release before the rename, and the one after, at once."""

import os
import shutil
import signal
from itertools import product

import pytest

from tests.project import LIVENESS, ROOT, Project
from tests.shop.calls import calls
from tests.shop.steps import STEPS
from tests.waiting import GRACE

Release = dict[str, str]

#: A body that notes its call, and holds where it is told to; batches hold before the third item.
CODE = """
    from tests.shop.calls import note


    def point(name, run):
        note(name, run)
        if os.environ.get("HOLDS") == name:
            hold(f"{name}-{run.attempt}")


    @routine(NAMED("seed"))
    def seed(run):
        effect("seed")
        point("seed", run)


    @routine(NAMED("fill"), over=lambda: range(1, 6), batch_size=2)
    def fill(items, run):
        for item in items:
            effect(f"fill{item}")
        if 3 in items:
            point("fill", run)


    @routine(NAMED("send"), atomic=False, retry=False)
    def send(run):
        effect("send")
        point("send", run)
        if "FAIL" in os.environ:
            raise LookupError
"""
NAMES = ["fill", "seed", "send"]
EFFECTS = [*(f"fill{item}" for item in range(1, 6)), "seed", "send"]
KINDS = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb", "sqlite"])
#: Behind a pooler, three frozen processes and their successors pin two sessions each.
SERVERS = pytest.mark.parametrize("kind", ["postgresql", "pgbouncer-40", "mariadb"])


def at_steps(*kinds: str) -> pytest.MarkDecorator:
    """Each step on PostgreSQL, and on others those at which they commit in another way.

    That the protocol holds at every step of each database is shown in tests/faults/test_steps.py.
    """
    near_commit = product(kinds, ["after-body", "before-commit", "after-commit"])
    cases = [*product(["postgresql"], STEPS), *near_commit]
    return pytest.mark.parametrize(("kind", "step"), cases)


def release(project: Project, directory: str, prefix: str, *before: str) -> Release:
    """A release that names its routines so, and named them otherwise before."""
    names = f'[f"{{each}}{{name}}" for each in {before!r}]'
    named = f"""
    def named(name):
        return dict(name=f"{prefix}{{name}}", renamed_from={names})

"""
    project.routines(named + CODE.replace("NAMED(", "**named("))
    (project.directory / directory).mkdir()
    shutil.copytree(project.directory / "plant", project.directory / directory / "plant")
    path = os.pathsep.join([str(project.directory / directory), str(ROOT)])
    return {"PYTHONPATH": path, "ONCE_RELEASE": directory}


@pytest.fixture
def old(project: Project) -> Release:
    return release(project, "old", "plant.")


@pytest.fixture
def new(project: Project) -> Release:
    return release(project, "new", "plant.new_", "plant.")


def run(project: Project, release: Release, *names: str, code: int = 0, **environment: str) -> str:
    process = project.once("run", *names, **release, **environment)
    assert process.finish() == code, process.output
    return process.output


def called(project: Project, name: str) -> int:
    return len(calls(project.directory, name))


@KINDS
def test_new_release_waits_for_the_old_one_and_says_for_which_process(
    project: Project, old: Release, new: Release
) -> None:
    first = project.once("run", "plant.seed", **old, HOLDS="seed")
    project.wait_for("seed-1")
    second = project.once("run", "plant.new_seed", **new)
    second.wait_for("Waiting")
    assert "plant.seed is run by " in second.output
    assert project.named(first) in second.output
    status = project.once("status", "plant.new_seed", **new)
    assert status.finish() == 0
    assert "Its record stands under its old name plant.seed." in status.output
    assert "once " in status.output
    project.release("seed-1")
    assert [first.finish(), second.finish()] == [0, 0], second.output
    assert "Renaming plant.seed to plant.new_seed..." in second.output
    assert (project.effects(), called(project, "seed")) == (["seed"], 1)
    assert project.completions() == ["plant.new_seed", "plant.seed"]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_pause_by_the_new_release_reaches_the_process_of_the_old_one(
    project: Project, old: Release, new: Release
) -> None:
    first = project.once("run", "plant.fill", **old, HOLDS="fill")
    project.wait_for("fill-1")
    pause = project.once("pause", "plant.new_fill", **new)
    assert pause.finish() == 0, pause.output
    assert "plant.new_fill is paused, also under its old name plant.fill: a" in pause.output
    project.release("fill-1")
    assert first.finish() == 5, first.output
    assert project.effects() == [f"fill{item}" for item in range(1, 5)]
    assert "Paused by" in run(project, new, "plant.new_fill", code=5)
    resume = project.once("resume", "plant.new_fill", **new)
    assert resume.finish() == 0, resume.output
    run(project, new, "plant.new_fill")
    assert project.effects() == [f"fill{item}" for item in range(1, 6)]


@KINDS
def test_releases_take_turns(project: Project, old: Release, new: Release) -> None:
    run(project, old)
    for release in (new, old, new, old):
        run(project, release)
        status = project.once("status", "--check", **release)
        assert status.finish() == 0, status.output
    assert project.effects() == EFFECTS
    shown = project.once("status", **old)
    assert shown.finish() == 0
    assert shown.output.count("superseded") == len(NAMES)
    assert "Another release renamed it to plant.new_seed" in shown.output
    reset = project.once("reset", "plant.seed", "--noinput", **old)
    assert reset.finish() == 2
    assert "plant.seed has the name plant.new_seed in another release" in reset.output


@SERVERS
def test_frozen_process_of_the_old_release_is_taken_over(
    project: Project, old: Release, new: Release
) -> None:
    names = ["seed", "fill"]
    frozen = {name: project.once("run", f"plant.{name}", **old, HOLDS=name) for name in names}
    for name, process in frozen.items():
        project.wait_for(f"{name}-1")
        process.send(signal.SIGSTOP)
    seconds = {name: project.once("run", f"plant.new_{name}", **new) for name in names}
    for name, second in seconds.items():
        assert second.finish(10 * (LIVENESS + GRACE)) == 0, second.output
        assert "Took over from attempt 1 on " in second.output, second.output
        project.release(f"{name}-1")
    for process in frozen.values():
        process.send(signal.SIGCONT)
    for process in frozen.values():
        assert process.finish() == 0, process.output
        assert "lost its right to commit" in process.output
    assert project.effects() == EFFECTS[:-1]
    for name in names:
        before, after = calls(project.directory, name)
        assert (before.key, before.attempt) == (after.key, 1)
        assert after.attempt > 2  # the tombstone has a number, too


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize(
    ("was_decided", "said"),
    [(True, "lost its right to commit"), (False, "done by another process")],
)
def test_process_whose_lock_is_lost_claims_a_number_that_moved_and_does_not_act(
    project: Project, old: Release, new: Release, was_decided: bool, said: str
) -> None:
    """Its lock's session was ended, which it learns late. Meanwhile its number came and went.

    A first number is refused at once, because the record is not empty any more.
    """
    for name in NAMES if was_decided else ():
        run(project, old, "--fake", f"plant.{name}")
        assert project.once("reset", f"plant.{name}", "--noinput", **old).finish() == 0
    patient = {"ONCE_LIVENESS_TIMEOUT": "600"}
    late = {
        name: project.once("run", f"plant.{name}", **old, **patient, TEST_HOLD=f"after-lock={name}")
        for name in NAMES
    }
    for name in NAMES:
        project.wait_for(name)
    locks = "pg_locks WHERE locktype = 'advisory' AND database = "
    own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    ended = project.rows(f"SELECT pg_terminate_backend(pid) FROM {locks}{own}")
    assert ended == [(True,)] * len(NAMES)
    run(project, old)
    run(project, new)
    for name, process in late.items():
        project.release(name)
        assert process.finish() == 0, process.output
        assert said in process.output
    assert project.effects() == EFFECTS
    for name in NAMES:
        assert called(project, name) == 1


@KINDS
def test_held_in_the_old_release_is_held_in_the_new_one(
    project: Project, old: Release, new: Release
) -> None:
    run(project, old, "plant.send", code=1, FAIL="1")
    output = run(project, new, "plant.send", code=5)  # the old name means it, too
    assert "plant.new_send" in output
    assert called(project, "send") == 1
    reset = project.once("reset", "plant.send", "--noinput", **new)
    assert reset.finish() == 0, reset.output
    run(project, new)
    first, second = calls(project.directory, "send")
    assert first.key == second.key


@KINDS
def test_releases_start_at_once_on_an_empty_database(
    project: Project, old: Release, new: Release
) -> None:
    processes = [project.once("run", **each) for each in [old, new] * 4]
    for process in processes:
        assert process.finish() == 0, process.output
    assert project.effects() == EFFECTS


@KINDS
def test_three_releases_start_at_once(project: Project, old: Release, new: Release) -> None:
    newest = release(project, "newest", "plant.newest_", "plant.new_", "plant.")
    run(project, old, "plant.fill")
    processes = [project.once("run", **each) for each in [old, new, newest] * 3]
    for process in processes:
        assert process.finish() == 0, process.output
    run(project, newest)
    assert project.effects() == EFFECTS
    assert [name for name in project.completions() if "newest" in name] == [
        f"plant.newest_{name}" for name in NAMES
    ]


def half_way(project: Project, old: Release) -> None:
    """Leave batches half-way, and one routine done, by a process that died."""
    run(project, old, "plant.seed", "plant.send")
    process = project.once("run", **old, HOLDS="fill")
    project.wait_for("fill-1")
    process.kill()


@at_steps("pgbouncer", "mariadb", "sqlite")
def test_killed_while_it_carries_over(
    project: Project, old: Release, new: Release, step: str
) -> None:
    half_way(project, old)
    for name in NAMES:
        killed = project.once("run", f"plant.new_{name}", **new, TEST_HOLD=f"{step}={name}-{step}")
        project.wait_for(f"{name}-{step}")
        killed.kill()
    processes = [project.once("run", **each) for each in (old, new, old, new)]
    for process in processes:
        assert process.finish() in (0, 3), process.output
    run(project, new)
    run(project, old)
    assert project.effects() == EFFECTS
    assert called(project, "fill") == 2
    keys = {call.key for call in calls(project.directory, "fill")}
    assert len(keys) == 1


@at_steps("pgbouncer-40", "mariadb")
def test_frozen_while_it_carries_over_and_thawed_beside_its_successor(
    project: Project, old: Release, new: Release, step: str
) -> None:
    half_way(project, old)
    frozen = {}
    for name in NAMES:
        frozen[name] = project.once(
            "run", f"plant.new_{name}", **new, TEST_HOLD=f"{step}={name}-{step}"
        )
        project.wait_for(f"{name}-{step}")
        frozen[name].send(signal.SIGSTOP)
    run(project, new)
    for name, process in frozen.items():
        project.release(f"{name}-{step}")
        process.send(signal.SIGCONT)
    for process in frozen.values():
        assert process.finish() == 0, process.output
    run(project, old)
    run(project, new)  # what is done was left to a later run, for the frozen process had its lock
    assert project.effects() == EFFECTS
    assert called(project, "fill") == 2
    for name in NAMES:
        assert f"plant.new_{name}" in project.completions()
