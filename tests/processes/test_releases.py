"""Two releases on one database: nothing older runs after something newer, and each scope counts."""

import os
import shutil
import signal

import pytest

from tests.project import ROOT, Project
from tests.shop.calls import calls
from tests.waiting import wait_until

Release = dict[str, str]

#: Each routine's effect tells the release that it is of; each body notes its call and may hold.
CODE = """
    import pathlib
    from once import content
    from tests.shop.calls import note

    PRICES = pathlib.Path(__file__).with_name("prices.csv")


    def work(name, run):
        note(name.split()[0], run)
        effect(name)
        if f"{name.split()[0]}-{run.attempt}" in os.environ.get("HOLDS", ""):
            hold(f"{name.split()[0]}-{run.attempt}")


    @routine(version=VERSION)
    def seed(run):
        work(f"seed v{VERSION}", run)


    @routine(version=VERSION, atomic=False)
    def tell(run):
        work(f"tell v{VERSION}", run)


    @routine(scope="release")
    def announce(run):
        work(f"announce {os.environ['ONCE_RELEASE']}", run)


    @routine(scope=content("*.csv"))
    def load(run):
        work(f"load {PRICES.read_text()}", run)


    @routine(name=f"plant.only{VERSION}")
    def only(run):
        work(f"only v{VERSION}", run)
"""
NAMES = ["seed", "tell", "announce", "load"]
OLD = ["announce old", "load cheap", "only v1", "seed v1", "tell v1"]
NEW = ["announce new", "load dear", "only v2", "seed v2", "tell v2"]


def release(project: Project, name: str, code: str, prices: str) -> Release:
    """A release of the project's code: the environment of its processes."""
    project.routines(code)
    directory = project.directory / name
    shutil.copytree(project.directory / "plant", directory / "plant")
    (directory / "plant" / "prices.csv").write_text(prices)
    return {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}", "ONCE_RELEASE": name}


@pytest.fixture
def old(project: Project) -> Release:
    return release(project, "old", CODE.replace("VERSION", "1"), "cheap")


@pytest.fixture
def new(project: Project) -> Release:
    return release(project, "new", CODE.replace("VERSION", "2"), "dear")


def in_order(project: Project) -> list[str]:
    """The effects in the order in which they came to exist."""
    return [name for (name,) in project.rows("SELECT name FROM shop_effect ORDER BY id")]


def record(project: Project) -> list[list[tuple[object, ...]]]:
    """All that is recorded."""
    tables = ("once_attempt", "once_completion")
    return [project.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_releases_take_turns(project: Project, old: Release, new: Release) -> None:
    for environment, effects in (
        (old, OLD),
        (new, sorted(OLD + NEW)),
        (old, sorted(OLD + NEW)),
        (new, sorted(OLD + NEW)),
    ):
        process = project.once("run", **environment)
        assert process.finish() == 0, process.output
        assert project.effects() == effects
    assert {number for _, number, _ in project.attempts()} == {1, 2}
    before = record(project)

    status = project.once("status", "--check", **old)
    assert status.finish() == 0, status.output
    for name, state in {
        "seed": "superseded",
        "tell": "superseded",
        "announce": "completed",
        "load": "completed",
        "only1": "completed",
        "only2": "unknown",
    }.items():
        (line,) = [line for line in status.output.splitlines() if f"plant.{name} " in line]
        assert state in line.split()
    for name in ("plant.seed", "plant.only2"):
        reset = project.once("reset", name, "--no-input", **old)
        assert reset.finish() == 2, reset.output
        assert "another release of the code knows more of it" in reset.output
    ask = "from django.test import Client; print(Client().get('/ready/').status_code)"
    server = project.server(ask, **old)
    assert server.finish() == 0, server.output
    assert server.output.splitlines()[-1] == "200"
    assert "event=startup_complete" in server.output
    assert " ran=0 waited=0 " in server.output
    assert record(project) == before


#: Many of each, so that the releases meet at some of them.
SEVERAL = """
    def declare(number):
        @routine(name=f"plant.seed{number}", version=VERSION)
        def seed():
            effect(f"seed{number} v{VERSION}")

        @routine(name=f"plant.announce{number}", scope="release")
        def announce():
            effect(f"announce{number} {os.environ['ONCE_RELEASE']}")


    for number in range(5):
        declare(number)
"""


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_releases_start_at_once(project: Project) -> None:
    releases = [
        release(project, name, SEVERAL.replace("VERSION", version), "")
        for name, version in (("old", "1"), ("new", "2"))
    ]
    processes = [project.once("run", **releases[number % 2]) for number in range(6)]
    for process in processes:
        assert process.finish() == 0, process.output
    effects = in_order(project)
    assert len(set(effects)) == len(effects)
    for number in range(5):
        assert {f"announce{number} old", f"announce{number} new"} <= set(effects)
        seeds = [name for name in effects if name.startswith(f"seed{number} ")]
        assert seeds in ([f"seed{number} v1", f"seed{number} v2"], [f"seed{number} v2"])
        attempts = project.rows(
            f"SELECT version FROM once_attempt WHERE routine = 'plant.seed{number}' "
            "AND state = 'succeeded' ORDER BY number"
        )
        assert [f"seed{number} v{version}" for (version,) in attempts] == seeds
    before = record(project)
    for environment in releases:
        assert project.once("run", **environment).finish() == 0
    assert record(project) == before


LOCKED = "once.databases.session_lock:SessionLock.yielding"
CLAIMED = "once.engine.claim:Claim._carry_out"


class Takeover:
    """Old runners, frozen, and new ones that take over from them: one of each for a routine."""

    def __init__(self, project: Project, old: Release, new: Release, step: str = "") -> None:
        self.project = project
        self.old = {
            name: project.once(
                "run",
                f"plant.{name}",
                **old,
                HOLDS="" if step else f"{name}-1",
                TEST_HOLD=f"{step}=step" if step else "",
            )
            for name in NAMES
        }
        for name in NAMES:
            project.wait_for("step" if step else f"{name}-1", len(NAMES) if step else 1)
        for process in self.old.values():
            process.send(signal.SIGSTOP)
        self.attempt = 1 if step == LOCKED else 2
        self.new = {
            name: project.once("run", f"plant.{name}", **new, HOLDS=f"{name}-{self.attempt}")
            for name in NAMES
        }
        for name, process in self.new.items():
            wait_until(
                lambda: process.pid in project.reached(f"{name}-{self.attempt}"),  # noqa: B023
                what=lambda: f"a takeover: {process.output}",  # noqa: B023
            )
        project.release("step")
        for process in self.old.values():
            process.send(signal.SIGCONT)

    def finish(self) -> None:
        """Let the new ones come to their end."""
        for name, process in self.new.items():
            self.project.release(f"{name}-{self.attempt}")
            assert process.finish() == 0, process.output

    def called(self) -> dict[str, str]:
        """Of which release the bodies were that were called, in their order."""
        found = {}
        for name in NAMES:
            who = {self.old[name].pid: "old", self.new[name].pid: "new"}
            noted = calls(self.project.directory, name)
            found[name] = " ".join(who.get(call.pid, "later") for call in noted)
        return found


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("postgresql", LOCKED),
        ("pgbouncer-20", LOCKED),
        ("postgresql", CLAIMED),
        ("mariadb", CLAIMED),
    ],
)
def test_old_release_frozen_before_its_work(
    project: Project, old: Release, new: Release, step: str
) -> None:
    takeover = Takeover(project, old, new, step)
    for name in ("seed", "tell"):  # superseded, and there is nothing to wait for
        assert takeover.old[name].finish() == 0, takeover.old[name].output
    for name in ("announce", "load"):  # these have work to do, once they may
        takeover.old[name].wait_for("Waiting")
    assert set(takeover.called().values()) == {"new"}
    takeover.finish()
    for name in ("announce", "load"):
        assert takeover.old[name].finish() == 0, takeover.old[name].output
    assert takeover.called() == {
        "seed": "new",
        "tell": "new",
        "announce": "new old",
        "load": "new old",
    }
    assert project.effects() == [
        "announce new",
        "announce old",
        "load cheap",
        "load dear",
        "seed v2",
        "tell v2",
    ]
    numbers = project.rows(
        "SELECT number FROM once_attempt WHERE routine = 'plant.announce' "
        "AND state = 'succeeded' ORDER BY id"
    )
    assert numbers == [(takeover.attempt,), (takeover.attempt + 1,)]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_old_release_frozen_in_its_body(project: Project, old: Release, new: Release) -> None:
    takeover = Takeover(project, old, new)
    for name in NAMES:
        project.release(f"{name}-1")
    for name in ("seed", "tell"):  # superseded, and there is nothing to wait for
        assert takeover.old[name].finish() == 0, takeover.old[name].output
    for name in ("announce", "load"):  # these have work to do, once they may
        takeover.old[name].wait_for("Waiting")
    for process in takeover.old.values():
        assert "attempt 1 lost its right to commit" in process.output.lower()
    assert project.completions() == []
    assert set(takeover.called().values()) == {"old new"}
    takeover.finish()
    for name in ("announce", "load"):
        assert takeover.old[name].finish() == 0, takeover.old[name].output
    assert takeover.called() == {
        "seed": "old new",
        "tell": "old new",
        "announce": "old new old",
        "load": "old new old",
    }
    news = ["announce new", "load dear", "seed v2", "tell v2"]
    # What tell v1 did is outside.
    assert project.effects() == sorted([*news, "tell v1", "announce old", "load cheap"])
    later = project.once("run", *(f"plant.{name}" for name in NAMES), **old)
    assert later.finish() == 0, later.output
    assert project.effects() == sorted([*news, "tell v1", "announce old", "load cheap"])
