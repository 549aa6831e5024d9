"""Pools that are not Django's: they lend two connections, or the command says so in time."""

import re

import pytest

from tests.project import Project
from tests.waiting import GRACE

pytestmark = [
    pytest.mark.django_db(databases=[]),
    pytest.mark.parametrize("kind", ["postgresql"]),
]

PATIENCE = 2.0
SEED = """
    @routine
    def seed():
        effect("seed")
"""


def begin(project: Project) -> None:
    project.routines(SEED)
    project.settings("default['ENGINE'] = 'tests.pools'")
    project.environment["ONCE_STARTUP_TIMEOUT"] = f"{PATIENCE:g}"


def test_pool_that_lends_one_is_named_in_time(project: Project) -> None:
    """The first look after which the deadline, or the patience, has passed is the last one."""
    begin(project)
    # Neither the pool nor the lock would give up in time.
    patient = {"TEST_POOL_TIMEOUT": "600", "ONCE_LIVENESS_TIMEOUT": "20"}
    commands = [
        (project.once("run", "--timeout", "1", **patient), 1.0),
        (project.once("run", **patient), PATIENCE),
    ]
    for command, limit in commands:
        assert command.finish() == 4, command.output
        assert "No connection was to be had for the lock of plant.seed" in command.output
        assert "A pool or pooler, where one lends them, must have two to lend" in command.output
        told = re.findall(r"(?:Waiting for|For) (\S+?) ?s\b", command.output)
        assert 0 < max(map(float, told)) < limit + GRACE, command.output
    assert project.effects() == []


def test_pool_that_lends_one_is_found_by_the_doctor(project: Project) -> None:
    begin(project)
    doctor = project.once("doctor", COLUMNS="500")
    assert doctor.finish() == 1, doctor.output
    assert "the work beside it had none within 5 s. Next: See that the server" in " ".join(
        doctor.output.split()
    )
    assert "PgBouncer" not in doctor.output


def test_error_of_the_pool_is_told(project: Project) -> None:
    begin(project)
    command = project.once("run", TEST_POOL_TIMEOUT="0.2")
    assert command.finish() == 4, command.output
    assert "PoolTimeout: QueuePool limit reached" in command.output
    assert "Traceback" not in command.output


def test_pool_that_lends_two_is_enough(project: Project) -> None:
    begin(project)
    commands = [project.once("run", TEST_POOL_SIZE="2") for _ in range(2)]
    assert [one.finish() for one in commands] == [0, 0], commands[0].output
    assert project.effects() == ["seed"]
