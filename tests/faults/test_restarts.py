"""A server that crashes or restarts under runs that go on, and end well."""

import pytest

from tests.faults.balancer import moved
from tests.faults.support import RESTING, ROWS, Server, changes
from tests.project import Project


def test_crash_that_loses_batches_while_a_run_rests(own_project: Project, server: Server) -> None:
    """The lock's session is gone, and its process does not know: pings are far apart."""
    project = own_project
    project.routines(RESTING)
    project.execute(ROWS)
    [(database,)] = project.rows("SELECT current_database()")
    project.release("done8")  # which a run that misses rows comes to
    with moved([server.url], database) as url:
        process = project.once("run", DATABASE_URL=url, ONCE_LIVENESS_TIMEOUT="60")
        project.wait_for("done0")
        server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
        for done in (0, 2, 4):
            project.release(f"done{done}")
            project.wait_for(f"done{done + 2}")
            if done == 0:
                server.execute("CHECKPOINT")
                server.keep_commits_in_memory()
        assert changes(project) == [1] * 6 + [0] * 2
        server.crash()
        assert changes(project) == [1] * 2 + [0] * 6
        project.release("done6")
        assert process.finish() == 0, process.output
    assert changes(project) == [1] * 8
    assert project.completions() == ["plant.backfill"]


@pytest.mark.parametrize("is_up", [False, True])
def test_server_restarted_while_a_sibling_waits(
    own_project: Project, server: Server, is_up: bool
) -> None:
    """Whoever is taken over, before the server is up again or after that, waits as well."""
    project = own_project
    names = ["first", "second"]
    project.routines(
        """
        @routine
        def first(run):
            effect("first")
            hold(f"first{run.attempt}")


        @routine(over=lambda: range(4), batch_size=2)
        def second(items, run):
            for item in items:
                effect(f"second{item}")
            hold(f"second{run.attempt}")
        """
    )
    holders = {name: project.once("run", f"plant.{name}") for name in names}
    for name in names:
        project.wait_for(f"{name}1")
    siblings = {name: project.once("run", f"plant.{name}") for name in names}
    for sibling in siblings.values():
        sibling.wait_for("Waiting")
    server.stop()
    for name in names:
        if not is_up:
            project.release(f"{name}1")
            holders[name].wait_for("Waiting")
    server.start()
    for name in names:
        project.wait_for(f"{name}2")
        project.release(f"{name}1")
        project.release(f"{name}2")
    for process in (*holders.values(), *siblings.values()):
        assert process.finish() == 0, process.output
    assert project.effects() == ["first", *(f"second{item}" for item in range(4))]
    assert project.completions() == ["plant.first", "plant.second"]
