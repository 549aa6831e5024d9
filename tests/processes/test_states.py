"""A table that follows the code, over releases: forward by itself, and back only when told to."""

import os
import shutil
import signal

import pytest

from tests.project import ROOT, Process, Project

Release = dict[str, str]

#: Each body makes the table what the value says, and may hold before it ends.
CODE = """
    from once import state
    from tests.shop.calls import note

    PLANS = {"names": [NAMES]}


    def follow(name, run):
        note(name, run)
        rows = Effect.objects.filter(name__startswith=f"{name} ")
        wanted = {f"{name} {plan}" for plan in PLANS["names"]}
        rows.exclude(name__in=wanted).delete()
        for missing in sorted(wanted - {*rows.values_list("name", flat=True)}):
            effect(missing)
        hold_here(name, run)


    def hold_here(name, run):
        if f"{name}-{run.attempt}" in os.environ.get("HOLDS", ""):
            hold(f"{name}-{run.attempt}")


    @routine(scope=state(lambda: PLANS))
    def sync(run):
        follow("sync", run)


    @routine(scope=state(lambda: PLANS), atomic=False)
    def tell(run):
        follow("tell", run)


    @routine(scope=state(lambda: PLANS), over=lambda: PLANS["names"], batch_size=1)
    def list_each(batch, run):
        if batch == PLANS["names"][:1]:
            Effect.objects.filter(name__startswith="list ").delete()
        effect(f"list {batch[0]}")
        hold_here(f"list-{batch[0]}", run)
"""
KINDS = ["postgresql", "mariadb", "sqlite"]


def release(project: Project, name: str, plans: str) -> Release:
    """A release of the project's code: the environment of its processes."""
    project.routines(CODE.replace("NAMES", ", ".join(map(repr, plans))))
    shutil.copytree(project.directory / "plant", project.directory / name / "plant")
    path = f"{project.directory / name}{os.pathsep}{ROOT}"
    return {"PYTHONPATH": path, "ONCE_RELEASE": name}


@pytest.fixture
def one(project: Project) -> Release:
    return release(project, "one", "ab")


@pytest.fixture
def two(project: Project) -> Release:
    return release(project, "two", "bc")


def of(plans: str) -> list[str]:
    """The table as a release wants it."""
    return [f"{name} {plan}" for name in ("list", "sync", "tell") for plan in plans]


def run(project: Project, *options: str, **environment: str) -> Process:
    process = project.once("run", *options, **environment)
    assert process.finish() == 0, process.output
    return process


def pod(project: Project, option: str = "--migrate", **environment: str) -> None:
    """A pod with an entrypoint that runs what is pending, and then a server that becomes ready."""
    run(project, *filter(None, [option]), **environment)
    ask = "from django.test import Client; print(Client().get('/ready/').status_code)"
    server = project.server(ask, **environment)
    assert server.finish() == 0, server.output
    assert server.output.splitlines()[-1] == "200"


def record(project: Project) -> list[list[tuple[object, ...]]]:
    """All that is recorded of routines, and the table."""
    tables = ("once_attempt", "once_completion", "once_anchor")
    own = "WHERE routine LIKE 'plant.%' ORDER BY id"
    recorded = [project.rows(f"SELECT * FROM {table} {own}") for table in tables]
    return [*recorded, project.rows("SELECT * FROM shop_effect ORDER BY id")]


def sync(project: Project) -> str:
    """What the rows of one routine say."""
    return "".join(name[-1] for name in project.effects() if name.startswith("sync "))


def state_of(project: Project, name: str, environment: Release) -> str:
    """Two lines of the status: how a routine stands, and what to do."""
    process = project.once("status", f"plant.{name}", **environment)
    assert process.finish() == 0, process.output
    return process.output


@pytest.mark.parametrize("kind", KINDS)
def test_state_goes_forward_and_back_when_told(
    project: Project, one: Release, two: Release
) -> None:
    pod(project, **one)
    assert project.effects() == of("ab")
    pod(project, **two)
    assert project.effects() == of("bc")
    before = record(project)

    # Rescheduled, or rolled back by a deploy that does not say so: nothing changes, and it is said.
    pod(project, **one)
    for check in (("wait",), ("status", "--check")):
        process = project.once(*check, **one)
        assert process.finish() == 0, process.output
    assert record(project) == before
    told = run(project, **one).output
    assert "No routines to run." in told
    for text in (told, state_of(project, "sync", one)):
        assert "a later value is recorded" in text
        assert "`manage.py once run --revert plant.sync` brings this value back" in text
    assert " superseded " in state_of(project, "sync", one)

    run(project, "--revert", "--reason", "rolled back", **one)
    assert project.effects() == of("ab")
    history = project.once("history", "plant.sync", **one)
    assert history.finish() == 0
    assert "rolled back" in history.output
    before = record(project)
    for environment in (one, two):
        pod(project, **environment)
        assert record(project) == before

    run(project, "--revert", **two)
    assert project.effects() == of("bc")
    before = record(project)
    run(project, "--revert", **two)  # as a job of each deploy does
    assert record(project) == before
    for name in ("sync", "tell", "list_each"):
        rows = project.rows(f"SELECT scope_key FROM once_completion WHERE routine = 'plant.{name}'")
        assert len(rows) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_killed", [False, True])
def test_pod_of_the_old_release_during_the_roll_out(
    project: Project, one: Release, two: Release, is_killed: bool
) -> None:
    """Each routine of the new release is on its way; one of them has committed a batch."""
    run(project, **one)
    for name, point, table in (
        ("list_each", "list-c-2", "b"),
        ("sync", "sync-2", "ab"),
        ("tell", "tell-2", "bc"),
    ):
        process = project.once("run", f"plant.{name}", **two, HOLDS=point)
        project.wait_for(point)
        if is_killed:
            process.kill()
        before = record(project)
        # SQLite has one lock for all, so that migrations would wait for the holder.
        pod(project, "" if project.is_sqlite and not is_killed else "--migrate", **one)
        assert record(project) == before
        prefix = name.partition("_")[0]
        found = [effect for effect in project.effects() if effect.startswith(prefix)]
        assert found == [f"{prefix} {plan}" for plan in table]
        if is_killed:
            assert "was begun, and is not done yet" in state_of(project, name, one)
        else:
            project.release(point)
            assert process.finish() == 0, process.output
    # To go on is the new release's, whose batches go on where they stood; or to go back.
    if is_killed:
        run(project, "plant.list_each", **two)
        assert "list b" in project.effects()
        assert "list c" in project.effects()
        run(project, "--revert", **one)
        assert project.effects() == of("ab")
    else:
        assert project.effects() == of("bc")


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_a_value_that_comes_back_begin_at_the_start(
    project: Project, one: Release, two: Release
) -> None:
    run(project, **one)
    process = project.once("run", "plant.list_each", **two, HOLDS="list-c-2")
    project.wait_for("list-c-2")
    process.kill()
    run(project, "plant.list_each", "--revert", **one)
    assert [name for name in project.effects() if name.startswith("list")] == ["list a", "list b"]
    before = record(project)
    pod(project, **two)  # whose begun attempt is of an earlier value by now
    assert [name for name in project.effects() if name.startswith("list")] == ["list a", "list b"]
    assert record(project)[1] != before[1]  # the other routines went forward
    run(project, "plant.list_each", "--revert", **two)
    assert [name for name in project.effects() if name.startswith("list")] == ["list b", "list c"]


#: Steps of a revert at which its process dies: before the reset is committed, after it, at the end.
STEPS = {"after-claim": ("bc", "bc"), "before-work": ("bc", "ab"), "after-commit": ("ab", "ab")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", STEPS)
def test_killed_revert(project: Project, one: Release, two: Release, step: str) -> None:
    run(project, **one)
    run(project, **two)
    process = project.once("run", "plant.sync", "--revert", **one, TEST_HOLD=f"{step}=step")
    project.wait_for("step")
    process.kill()
    at_once, later = STEPS[step]
    assert sync(project) == at_once
    # Without a reset nothing was decided. After it, any process of that release goes on.
    pod(project, **two)
    pod(project, **one)
    assert sync(project) == later
    run(project, "plant.sync", "--revert", **one)
    assert sync(project) == "ab"


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_frozen_process_of_a_later_value_commits_nothing_after_a_revert(
    project: Project, one: Release, two: Release
) -> None:
    run(project, **one)
    frozen = {}
    for name in ("tell", "sync"):  # whose transaction may lock the rows of the other one
        frozen[name] = project.once("run", f"plant.{name}", **two, HOLDS=f"{name}-2")
        project.wait_for(f"{name}-2")
        frozen[name].send(signal.SIGSTOP)
    run(project, "plant.sync", "plant.tell", "--revert", **one)
    assert [n for n in project.effects() if n[0] in "st"] == of("ab")[2:]
    for name, process in frozen.items():
        project.release(f"{name}-2")
        process.send(signal.SIGCONT)
        assert process.finish() == 0, process.output
        assert "lost its right to commit" in process.output
    assert [n for n in project.effects() if n[0] in "st"] == of("ab")[2:]


@pytest.mark.parametrize("kind", KINDS)
def test_releases_that_start_at_once_do_not_take_turns(project: Project) -> None:
    releases = [release(project, f"r{plans}", plans) for plans in ("ab", "bc", "cd")]
    processes = [project.once("run", **releases[number % 3]) for number in range(9)]
    for process in processes:
        assert process.finish() == 0, process.output
    ran = project.rows(
        "SELECT routine, scope_key FROM once_attempt WHERE state = 'succeeded' ORDER BY number"
    )
    assert len({*ran}) == len(ran)
    for name in ("sync", "tell", "list_each"):
        mine = [key for routine, key in ran if routine == f"plant.{name}"]
        (done,) = project.rows(
            f"SELECT scope_key FROM once_completion WHERE routine = 'plant.{name}'"
        )
        assert done == (mine[-1],)
    before = record(project)
    for environment in releases:
        pod(project, **environment)
        assert record(project) == before


@pytest.mark.parametrize("kind", KINDS)
def test_reverts_at_once_leave_one_value(project: Project) -> None:
    releases = [release(project, f"r{plans}", plans) for plans in ("ab", "bc")]
    for environment in releases:
        run(project, **environment)
    processes = [project.once("run", "--revert", **releases[number % 2]) for number in range(6)]
    for process in processes:
        assert process.finish() == 0, process.output
    for name in ("sync", "tell", "list"):
        found = [effect for effect in project.effects() if effect.startswith(name)]
        assert found in ([f"{name} a", f"{name} b"], [f"{name} b", f"{name} c"])
        (done,) = project.rows(
            f"SELECT scope_key FROM once_completion WHERE routine LIKE 'plant.{name}%'"
        )
        (last,) = project.rows(
            f"SELECT scope_key FROM once_anchor WHERE routine LIKE 'plant.{name}%' "
            "ORDER BY number DESC LIMIT 1"
        )
        assert done == last


@pytest.mark.parametrize("kind", ["sqlite"])
def test_server_starts_without_the_value_and_asks_again(project: Project) -> None:
    project.routines("""
        import pathlib
        from once import state

        VALUE = pathlib.Path(__file__).with_name("value")


        @routine(scope=state(lambda: VALUE.read_text()))
        def sync():
            effect("sync")
        """)
    command = project.once("run")
    assert command.finish() == 1, command.output
    assert "(once.W007) Routine 'plant.sync' has scope=state(<lambda>)" in command.output
    assert "whose function raised an error: FileNotFoundError" in command.output
    ask = f"""if True:
        import pathlib, time
        from django.test import Client
        print("first", Client().get("/ready/").status_code, flush=True)
        pathlib.Path({str(project.directory / "plant" / "value")!r}).write_text("a")
        while Client().get("/ready/").status_code != 200:
            time.sleep(0.05)
        print("ready")
        """
    server = project.server(ask)
    assert server.finish() == 0, server.output
    for text in ("This server starts all the same", "first 503", "ready", "event=startup_complete"):
        assert text in server.output
    assert project.effects() == ["sync"]
