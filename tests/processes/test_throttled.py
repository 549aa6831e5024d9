"""A process that waits for a throttle: what it says, and how it ends."""

import signal

import pytest

from tests.project import Project

pytestmark = pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])


def test_process_that_waits_says_so_and_ends_on_sigterm(project: Project) -> None:
    project.routines(
        """
        def busy(run):
            return 0 if Effect.objects.filter(name="free").exists() else 3600


        @routine(over=lambda: [1, 2, 3], batch_size=1, throttle=busy)
        def fill(items):
            effect(str(items[0]))
        """
    )
    process = project.once("run")
    process.wait_for("Waits: busy says 3600 s")
    assert project.status()["plant.fill"]["throttled"] == "busy says 3600 s"
    process.send(signal.SIGTERM)
    assert process.finish() == 143, process.output
    assert project.attempts() == [("plant.fill", 1, "interrupted")]
    assert project.status()["plant.fill"]["throttled"] is None
    project.execute("INSERT INTO shop_effect (name, pid) VALUES ('free', 0)")
    again = project.once("run")
    assert again.finish() == 0, again.output
    assert project.effects() == ["1", "2", "3", "free"]
