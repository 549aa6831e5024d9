"""``once forget`` beside processes of a release that still has the routine."""

import signal

import pytest

from tests.project import Project

pytestmark = pytest.mark.django_db(databases=[])

SEED = """
    @routine
    def seed():
        effect("seed")
        hold("seed")
"""


@pytest.mark.parametrize("kind", ["postgresql", "pgbouncer", "mariadb"])
def test_frozen_process_commits_nothing_of_what_is_forgotten(project: Project) -> None:
    """Thawed, it finds that it is not done, and does it once: its release has the routine."""
    project.routines(SEED)
    frozen = project.once("run", "--no-wait")
    project.wait_for("seed")
    project.routines("")  # the next release has none
    refused = project.once("forget", "--noinput", "plant.seed")
    assert refused.finish() == 3, refused.output
    assert project.named(frozen) in refused.output
    frozen.send(signal.SIGSTOP)
    done = project.once("forget", "--noinput", "plant.seed")
    while done.finish() == 3:  # until the server evicts the holder
        done = project.once("forget", "--noinput", "plant.seed")
    assert "plant.seed: removed 1 anchors, 1 attempts, 0 completions." in done.output
    project.release("seed")
    frozen.send(signal.SIGCONT)
    assert frozen.finish() == 0, frozen.output
    assert frozen.output.count("event=started") == 2
    assert project.effects() == ["seed"]
    assert project.attempts() == [("plant.seed", 1, "succeeded")]
