"""What people write, of any kind: it is taken for what it says, or refused by name."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any
from unittest.mock import patch

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.test import override_settings
from hypothesis import assume, given
from hypothesis import strategies as st

from once import Routine, conf, routine
from once.exceptions import OnceError, RoutineError
from once.management.commands.once import Command
from once.text import one_line, whole
from tests.properties.support import ask

#: As the environment or an argument may be: bytes of any kind, but no NUL.
TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | (
    st.binary().map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.decimals()
    | st.timedeltas()
    | st.text(alphabet=st.characters())
    | st.binary()
    | st.sampled_from([len, int, object()]),
    lambda one: st.lists(one, max_size=3) | st.tuples(one, one) | st.dictionaries(st.text(), one),
    max_leaves=4,
)
SECONDS = (
    *("ONCE_STARTUP_TIMEOUT", "ONCE_LIVENESS_TIMEOUT", "ONCE_RETRY_DELAY"),
    "ONCE_MIGRATE_LOCK_TIMEOUT",
)
FLAGS = st.sampled_from(
    [
        *("--json", "--no-wait", "--fake", "--plan", "--reason", "--timeout", "--version", "--"),
        *("--no-input", "--migrate", "--check", "--no-atomic", "--keep-going", "-v", "3"),
        *("--database", "default", "shop.*", "1e9", "nan", "--dry-run", "--limit"),
    ]
)
ARGUMENTS = st.tuples(
    st.sampled_from(["run", "status", "wait", "call", "reset", "doctor"]),
    st.lists(FLAGS | TEXT | st.builds("--{}={}".format, st.sampled_from(["r", "ti", "ver"]), TEXT)),
).map(lambda words: [words[0], *words[1]])
PARSER = Command().create_parser("manage.py", "once")


def environment(name: str, value: str) -> Any:
    return patch.dict(os.environ, {name: value})


def is_storable(text: str) -> bool:
    """Whether every database takes a text: UTF-8, and no NUL."""
    return text.encode(errors="ignore").decode() == text and "\0" not in text


def is_sound(name: str, value: Any) -> bool:
    """Whether a value that was taken can do no harm later on."""
    if name in SECONDS:
        return type(value) is float and 0 <= value <= 86_400
    if name == "ONCE_RELEASE":
        return value == value.strip() and is_storable(value) and len(value) <= 200
    if name == "ONCE_ROLE":
        return type(value) is str and len(value) <= 50 and not re.search(r"\s", value)
    if name == "ONCE_STARTUP_COMMANDS":
        return all(type(one) is str and one == one.strip() for one in value)
    if name == "ONCE_LOCK_MIGRATE":
        return type(value) is bool
    if name == "ONCE_SCRUB":
        return value is None or callable(value)
    return value in ("run", "background", "off", "raise", "log")


@pytest.mark.parametrize("name", conf.NAMES)
@given(value=TEXT)
def test_any_environment_variable_is_taken_or_refused(name: str, value: str) -> None:
    with environment(name, value):
        found, refusal = ask(conf.NAMES[name], ImproperlyConfigured)
    if refusal:
        assert refusal.startswith(f"The environment variable {name} must be ")
        assert refusal.isprintable()
    else:
        assert is_sound(name, found)


@pytest.mark.parametrize("name", conf.NAMES)
@given(value=ANYTHING)
def test_any_setting_is_taken_or_refused(name: str, value: object) -> None:
    with override_settings(**{name: value}):
        found, refusal = ask(conf.NAMES[name], ImproperlyConfigured)
    if refusal:
        assert refusal.startswith(f"The setting {name} must be ")
    else:
        assert is_sound(name, found)


@pytest.mark.parametrize("name", SECONDS)
@given(seconds=st.floats(1, 86_400) | st.integers(1, 86_400))
def test_seconds_are_what_they_were(name: str, seconds: float) -> None:
    with override_settings(**{name: seconds}):
        assert conf.NAMES[name]() == seconds
    with environment(name, repr(seconds)):
        assert conf.NAMES[name]() == seconds


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=200))
def test_release_is_what_it_was(release: str) -> None:
    with override_settings(ONCE_RELEASE=release):
        assert conf.release() == release
    with environment("ONCE_RELEASE", f" {release}\n"):
        assert conf.release() == release


@given(st.lists(st.from_regex(r"\w+", fullmatch=True)))
def test_commands_are_what_they_were(commands: list[str]) -> None:
    with environment("ONCE_STARTUP_COMMANDS", ", ".join(commands)):
        assert conf.startup_commands() == tuple(commands)


@given(ARGUMENTS)
def test_any_arguments_are_taken_or_refused(arguments: list[str]) -> None:
    assume(not any(one.startswith(("-h", "--h")) for one in arguments))  # print, and end
    assume(arguments[0] == "call" or not any(one.startswith("--ver") for one in arguments))
    taken, refusal = ask(lambda: PARSER.parse_args(arguments), CommandError)
    if refusal:
        assert refusal.startswith("Error: ")
        return
    reason = getattr(taken, "reason", "")
    assert is_storable(reason)
    assert 0 <= (getattr(taken, "timeout", None) or 0) < math.inf
    if taken.subcommand == "call":
        assert Routine(function=lambda: None, name=f"call:{taken.key}", version=taken.version)


@given(st.floats(0, allow_infinity=False))
def test_timeout_is_what_it_was(seconds: float) -> None:
    assert PARSER.parse_args(["wait", f"--timeout={seconds!r}"]).timeout == seconds


OPTIONS = [option.name for option in fields(Routine) if option.init and option.name != "function"]


@pytest.mark.parametrize("body", [lambda: None, lambda batch: None], ids=["plain", "batched"])
@given(options=st.dictionaries(st.sampled_from(OPTIONS), ANYTHING, min_size=1, max_size=3))
def test_any_options_are_taken_or_refused(
    body: Callable[..., None], options: dict[str, Any], declared: list[Routine]
) -> None:
    batched = {"over": list} if body.__code__.co_argcount else {}
    given = {"name": "shop.seed", **batched, **options}
    made, refusal = ask(lambda: routine(**given)(body), RoutineError)
    if refusal:
        assert declared == []
        return
    assert declared == [made]
    declared.clear()
    assert made.kind in ("atomic", "batched", "external", "process")
    assert {type(one) for one in (made.atomic, made.last_pass, made.retry, made.startup)} == {bool}
    assert isinstance(made.using, str)
    assert 1 <= made.batch_size < 2**31
    assert 0 <= made.rest <= 86_400
    assert 0.001 <= (made.statement_timeout or 1) <= 86_400


@given(TEXT)
def test_any_name_is_taken_or_refused(name: str) -> None:
    made, refusal = ask(lambda: Routine(function=lambda: None, name=name), RoutineError)
    assert refusal.isprintable()
    if not refusal:
        assert 0 < len(made.name) <= 200
        assert is_storable(made.name)
        assert not any(character.isspace() for character in made.name)


@given(st.text(alphabet=st.characters()))
def test_any_error_fits_a_log_line_and_a_database(message: str) -> None:
    for error in (LookupError(message), OnceError(message)):
        line = one_line(error)
        assert len(line.splitlines()) <= 1
        assert is_storable(line)
        text = whole(error)
        assert is_storable(text)
        assert len(text) <= 10_000
        assert text.splitlines()[0] == line[:5_000]
