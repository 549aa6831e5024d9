"""Scope ``state``: which values have a digest, and which are the same."""

import datetime
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.test import override_settings

from once import Routine, content, state
from once.checks import check
from once.exceptions import RoutineError, ValueUnknown
from once.routines import registry


def key(value: object) -> str:
    """The scope key of a value."""
    return routine(lambda: value).scope_key


def routine(value: Callable[[], object], **options: Any) -> Routine:
    return Routine(function=lambda: None, name="shop.sync", scope=state(value), **options)


def test_key_is_the_same_in_every_process() -> None:
    digest = hashlib.sha256(b'json:{"a":[1,"\\u00e9"],"b":null}').hexdigest()
    assert key({"b": None, "a": (1, "é")}) == f"state:{digest}"


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (["a", "b"], ["b", "a"]),
        ("1", 1),
        (b"1", "1"),
        (b"1", 1),
        ("", b""),
        (1, 1.0),
        (True, 1),
        ([], {}),
        ("state:", "state"),
    ],
)
def test_other_values_have_other_keys(value: object, other: object) -> None:
    assert key(value) != key(other)
    assert key(value) == key(value)


def nested(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None. Perhaps a `return` is missing"),
        ({"a"}, "type set"),
        ([datetime.date(2026, 1, 1)], "type list"),
        (float("nan"), "type float"),
        ({1: "a", "b": 2}, "type dict"),
        (object(), "type object"),
        (nested(100_000), "type list"),
    ],
)
def test_value_without_a_digest_is_refused(value: object, words: str) -> None:
    with pytest.raises(RoutineError) as refused:
        key(value)
    assert "Routine 'shop.sync' has scope=state(" in str(refused.value)
    assert words in str(refused.value)
    assert "Have it return text, bytes or JSON" in str(refused.value)


async def later() -> str:
    return ""


@pytest.mark.parametrize("value", ["a", None, 3, later, lambda needless: "a"])
def test_state_of_no_plain_function_is_refused(value: Any) -> None:
    with pytest.raises(RoutineError, match=r"state\(\)"):
        state(value)


def test_scope_without_its_call_is_refused() -> None:
    with pytest.raises(RoutineError, match=r"content\(...\) or state\(...\)"):
        Routine(function=lambda: None, name="shop.sync", scope=state)  # type: ignore[arg-type]


def test_value_that_ends_the_process_is_an_error() -> None:
    def value() -> str:
        raise SystemExit(3)

    with pytest.raises(ValueUnknown, match="whose function raised an error: SystemExit: 3"):
        routine(value).check_scope()


def test_value_is_asked_for_once_in_a_process_and_again_after_an_error() -> None:
    asked: list[int] = []

    def value() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise KeyError("PLANS")
        return "a"

    made = routine(value)
    with pytest.raises(ValueUnknown, match=r"whose function raised an error: KeyError: 'PLANS'"):
        made.check_scope()
    assert made.scope_key == made.scope_key == key("a")
    assert len(asked) == 2
    with override_settings(PLANS=["a"]):  # by which a test changes a value
        made.check_scope()
    assert len(asked) == 3


def test_state_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    files = content(str(tmp_path / "*.csv"))
    made = Routine(function=lambda: None, name="shop.sync", scope=state(files))
    same = Routine(function=lambda: None, name="shop.sync", scope=files)
    assert made.scope_key == f"state:{same.scope_key}"
    assert str(made.scope) == f"state({files})"
    missing = state(content(str(tmp_path / "*.json")))
    error = Routine(function=lambda: None, name="shop.sync", scope=missing).scope_error()
    assert error is not None
    assert "no file matches" in str(error)


def the_finding(monkeypatch: pytest.MonkeyPatch, value: Callable[[], object]) -> CheckMessage:
    """Return the one finding of the checks for a routine that follows this value."""
    site = registry.Site()
    monkeypatch.setattr(registry, "site", site)
    site.declared.append(routine(value))
    (message,) = check()
    assert message.obj == "shop.sync"
    assert message.hint
    return message


def test_w007_value_that_is_not_known_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising() -> str:
        raise KeyError("PLANS")

    assert the_finding(monkeypatch, raising).id == "once.W007"


def test_e010_value_that_no_digest_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert the_finding(monkeypatch, lambda: {1}).id == "once.E010"


def test_state_shows_its_function() -> None:
    assert str(state(later_value)) == "state(later_value)"
    assert str(state(functools.partial(later_value))) == "state(partial)"


def later_value() -> str:
    return "a"
