"""Every public name has its place in the reference."""

import dataclasses
import inspect
import re
import signal
from datetime import UTC, datetime
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

import pytest

from once import Routine, checks, conf
from once.cli import dry_run, exit_codes
from once.databases.lock import NoLock
from once.doctor import deployment, examination
from once.engine.rehearsal import Rehearsal
from once.models import Attempt, State, Trigger, Wish
from once.results import Outcome
from once.status import past, state
from once.status.state import RoutineState, Status
from tests.docs.command import PAGE, subcommands, with_options
from tests.project import ROOT

REFERENCE = ROOT / "docs" / "reference"
COMMAND = PAGE.read_text()
MODULES = (
    "once",
    "once.exceptions",
    "once.health_check",
    "once.operations",
    "once.prometheus",
    "once.signals",
    "once.testing",
    "once.throttles",
    "once.views",
)


def rows(text: str) -> set[str]:
    """What stands in code in the first column of tables."""
    first = re.findall(r"^\| ([^|]*)\|", text, re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_public_names(module: str) -> None:
    python = page("python")
    for name in import_module(module).__all__:
        assert re.search(rf":: {module}\.{name}\n|automodule:: {module}\n   :members:\n", python), (
            name
        )


def test_options_of_a_routine() -> None:
    options = {option.name for option in dataclasses.fields(Routine) if option.init} - {"function"}
    assert rows(page("routine").partition("## Scopes")[0]) == options


def test_settings() -> None:
    assert rows(page("settings")) == set(conf.NAMES)


def test_checks() -> None:
    ids = set(re.findall(r'"(once\.[EW]\d+)"', inspect.getsource(checks)))
    assert ids <= set(re.findall(r"once\.[EW]\d+", page("checks")))


def test_subcommands_and_their_options() -> None:
    assert re.findall(r"^## `once (\w+)`$", COMMAND, re.MULTILINE) == [*subcommands()]
    assert with_options(COMMAND) == COMMAND, "Run: python -m tests.docs.command"


def test_exit_codes() -> None:
    codes = {
        value for name, value in vars(exit_codes).items() if re.fullmatch("[A-Z][A-Z_]+", name)
    }
    codes |= {128 + signal.SIGINT, 128 + signal.SIGTERM}
    assert codes == set(map(int, re.findall(r"^\| (\d+) \|", COMMAND, re.MULTILINE))) - {0}


def test_keys_of_json() -> None:
    _, *parts = re.split(r"^Of `([^`]+)`", COMMAND.partition("## JSON")[2], flags=re.M)
    named = dict(zip(parts[::2], parts[1::2], strict=True))
    runs, histories, rehearsals = (named[key] for key in ("run", "history", "run --dry-run"))
    doctors, failed = named["doctor"], named["items"]
    keys = {field.name for field in dataclasses.fields(Status)}
    assert rows(runs) == {*state.to_json([], lacking={}), *keys, "outcome"}
    history = past.History(
        [past.PastAttempt(Attempt(started_at=datetime.now(UTC)))],
        [past.PastWish(Wish(made_at=datetime.now(UTC)))],
    )
    of_it = past.to_json("default", "x", history)
    assert rows(histories) == {
        "schema",
        "routines",
        *of_it["attempts"][0],
        *of_it["wishes"][0],
    }
    of_an_item = {field.name for field in dataclasses.fields(past.PastItem)}
    assert rows(failed) == {"schema", "routines", *of_an_item}
    tried: Any = {"here": None, "upcoming": None}
    routine = Routine(function=lambda: None, name="x")
    assert rows(rehearsals) == {
        *dry_run.to_json(Rehearsal(routine=routine, lock=NoLock(), limit=None, **tried))
    }
    of_a_finding = {field.name for field in dataclasses.fields(deployment.Finding)}
    assert rows(doctors) == {*examination.to_json([]), *of_a_finding}
    for word in (*Outcome, *deployment.Level):
        assert f"`{word}`" in COMMAND


def test_states_and_triggers() -> None:
    of_a_routine, in_the_tables = page("states").split("## In the tables")
    assert rows(of_a_routine) == set(RoutineState)
    assert rows(in_the_tables) == {*State.values, *Trigger.values}


def test_path_of_a_routine_names_code_that_exists() -> None:
    path = (ROOT / "CONTRIBUTING.md").read_text().partition("The path of a routine")[2]
    names = re.findall(r"[\w.]+:[\w.]*\w", path.split("```")[1])
    assert len(names) > 20
    for name in names:
        resolve_name(f"once.{name}")
