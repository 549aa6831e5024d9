"""Effects outside: at least once under one key, or at most once until a person decides."""

import getpass
import json
import signal
from typing import Any

import pytest

from tests.project import Project
from tests.shop.calls import Call, calls

NAME = "plant.announce"


def announcing(**options: object) -> str:
    """A routine with an effect outside, a line in a file, after which its first attempt holds."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return f"""
        from tests.shop.calls import note


        @routine(atomic=False{given})
        def announce(run):
            note("announce", run)
            if run.attempt == 1:
                hold("effect")
    """


def announced(project: Project) -> list[Call]:
    return calls(project.directory, "announce")


def kill_in_the_body(project: Project) -> None:
    """Kill a process between effect and record."""
    process = project.once("run")
    project.wait_for("effect")
    process.kill()
    project.release("effect")


def of_status(project: Project) -> dict[str, Any]:
    shown: dict[str, Any] = project.status()[NAME]
    return shown


@pytest.fixture
def held(project: Project) -> Project:
    """A project whose routine is held, and was called once."""
    project.routines(announcing(retry=False))
    kill_in_the_body(project)
    assert project.once("run", "-v0").finish() == 5
    return project


@pytest.mark.parametrize("kind", ["postgresql"])
def test_held_is_what_every_command_says(held: Project) -> None:
    processes = {
        arguments: held.once(*arguments.split())
        for arguments in ("run", "run --no-wait", "wait", "status", "status --check", "run --json")
    }
    codes = {arguments: process.finish() for arguments, process in processes.items()}
    assert codes == {
        "run": 5,
        "run --no-wait": 5,
        "wait": 5,
        "status": 0,
        "status --check": 5,
        "run --json": 5,
    }
    for process in processes.values():
        assert f"once reset {NAME}" in process.output, process.output
        assert f"once run --fake {NAME}" in process.output
        assert "Traceback" not in process.output
    shown = of_status(held)
    assert (shown["state"], shown["attempts"], shown["completed_at"]) == ("held", 2, None)
    assert "Attempt 1 on" in shown["message"]
    assert f"once reset {NAME}" in shown["message"]
    # Of that attempt, and not of the one that found it lost and did nothing.
    assert (shown["pid"], shown["error"]) == (announced(held)[0].pid, "A successor took over.")
    run = processes["run --json"].output
    told = json.loads(run[run.index("{") : run.rindex("}") + 1])
    assert (told["done"], told["counts"]) == (False, {"held": 1})
    assert told["routines"][0]["outcome"] == "skipped"
    assert len(announced(held)) == 1


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_held_is_tried_again_after_a_reset_under_the_same_key(held: Project) -> None:
    unconfirmed = held.once("reset", NAME)
    assert unconfirmed.finish() == 2
    assert "--noinput" in unconfirmed.output
    assert held.once("run", "-v0").finish() == 5
    reset = held.once("reset", NAME, "--no-input", "--reason", "the partner got nothing")
    assert reset.finish() == 0, reset.output
    assert of_status(held)["state"] == "pending"
    [decision] = held.rows(
        'SELECT number, state, "user", reason FROM once_attempt WHERE "trigger" = \'reset\''
    )
    assert decision == (3, "succeeded", getpass.getuser(), "the partner got nothing")
    again = held.once("run")
    assert again.finish() == 0, again.output
    [first, second] = announced(held)
    assert second.key == first.key
    assert (first.attempt, second.attempt) == (1, 4)
    assert held.completions() == [NAME]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_held_is_completed_by_a_fake(held: Project) -> None:
    fake = held.once("run", "--fake", NAME, "--reason", "the partner has it")
    assert fake.finish() == 0, fake.output
    assert held.completions() == [NAME]
    run, wait = held.once("run"), held.once("wait")
    assert [run.finish(), wait.finish()] == [0, 0]
    assert of_status(held)["state"] == "completed"
    [decision] = held.rows(
        "SELECT state, \"user\", reason FROM once_attempt WHERE trigger = 'fake'"
    )
    assert decision == ("succeeded", getpass.getuser(), "the partner has it")
    assert len(announced(held)) == 1


@pytest.mark.parametrize("kind", ["postgresql"])
def test_reset_of_what_was_killed_is_a_decision_before_anybody_noticed(project: Project) -> None:
    project.routines(announcing(retry=False))
    kill_in_the_body(project)
    reset = project.once("reset", NAME, "--no-input")
    assert reset.finish() == 0, reset.output
    again = project.once("run")
    assert again.finish() == 0, again.output
    assert len({call.key for call in announced(project)}) == 1
    assert len(announced(project)) == 2


@pytest.mark.parametrize("kind", ["postgresql"])  # on SQLite all runs have one lock
@pytest.mark.parametrize("command", ['"run", "plant.inner"', '"status"'])
@pytest.mark.parametrize("moment", ["before", "within"])
def test_signal_while_a_body_calls_the_command_ends_the_run_around_it(
    project: Project, command: str, moment: str
) -> None:
    """The body comes to its end, as every body with outside effects does, and nothing follows."""
    project.routines(f"""
        from django.core.management import call_command

        @routine(startup=False)
        def inner():
            hold("within")
            effect("inner")

        @routine(atomic=False)
        def outer():
            hold("before")
            call_command("once", {command})
            hold("within")
            reach("end")

        @routine(after=[outer])
        def last():
            effect("last")
    """)
    project.release("before" if moment == "within" else "within")
    runner = project.once("run", "plant.last")
    project.wait_for(moment)
    runner.send(signal.SIGTERM)
    runner.wait_for("A second signal ends at once.")
    project.release(moment)
    assert runner.finish() == 143, runner.output
    assert project.reached("end")
    ran = [("plant.inner", 1, "succeeded")] * ("inner" in command)
    assert project.attempts() == [*ran, ("plant.outer", 1, "succeeded")]
