"""What is said of an error: its type and first line in lists, all of it where it is kept."""

import asyncio
import re
from collections.abc import Callable

import pytest
from django.test import override_settings

from once import Routine
from once.exceptions import OnceError, RoutineError
from once.text import one_line, trace, whole
from tests.project import ROOT

SECURITY = (ROOT / "SECURITY.md").read_text()


class Postgres(Exception):
    """Looks like an error of the driver."""


CARET = Postgres('column "nme" does not exist\nLINE 1: SELECT nme FROM t\n               ^')
DETAIL = Postgres("duplicate key value violates it\nDETAIL:  Key (a)=(1) already exists.")
GROUP = ExceptionGroup("unhandled errors in a TaskGroup", [CARET, ValueError("later")])
NOTED = ValueError("no such brand")
NOTED.add_note("Before that, after a commit: nothing")
CAUSED = LookupError("the last")
CAUSED.__cause__ = ValueError("the first")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CARET, 'Postgres: column "nme" does not exist'),
        (DETAIL, "Postgres: duplicate key value violates it"),
        (
            GROUP,
            "ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions): "
            'Postgres: column "nme" does not exist',
        ),
        (NOTED, "ValueError: no such brand"),
        (CAUSED, "LookupError: the last"),
        (ValueError("\n\n  below\ttwo \nempty lines"), "ValueError: below two"),
        (ValueError(), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RoutineError("speaks\nfor itself"), "speaks for itself"),
    ],
    ids=["caret", "detail", "group", "note", "cause", "blank", "empty", "exit", "own"],
)
def test_error_is_named_by_its_type_and_first_line(error: BaseException, line: str) -> None:
    assert one_line(error) == line
    assert whole(error).splitlines()[0] == line


def test_error_without_end_is_shortened_and_kept_with_its_traceback() -> None:
    message = "x" * 5_000
    line = one_line(ExceptionGroup(message, [ValueError(message)]))
    assert len(line) < 700
    assert line.endswith("xx [...]")
    kept = whole(ValueError(message * 3))
    assert len(kept) == 10_000
    assert kept.splitlines()[0] == f"ValueError: {'x' * 282} [...]"
    assert kept.endswith("xx\n")
    assert message in whole(ValueError(message))


def test_next_step_of_an_own_error_is_never_cut_off() -> None:
    error = OnceError("x" * 400 + " Run this again.")
    assert one_line(error).endswith(" Run this again.")


def test_error_whose_message_cannot_be_made_is_named_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert whole(Broken()).splitlines()[0] == "Broken: its message cannot be shown"


def test_traceback_of_a_body_begins_at_the_body() -> None:
    def body() -> None:
        raise LookupError("no such \x1b[31mcurrency")

    with pytest.raises(LookupError) as failure:
        Routine(function=body, name="shop.seed").call(None)
    heading, frame, *_, last = trace(failure.value).splitlines()
    assert heading == "Traceback (most recent call last):"
    assert frame.startswith(f'  File "{__file__}", line ')
    assert frame.endswith(", in body")
    assert last == r"LookupError: no such \x1b[31mcurrency"
    assert "in body" in whole(failure.value).splitlines()[2]


def removed(text: str) -> str:
    return text.replace("hunter2", "[removed]")


def broken(text: str) -> str:
    raise KeyError(text)


@pytest.mark.parametrize("error", [ValueError("hunter2\nmore"), OnceError("it said: hunter2")])
def test_secret_is_in_no_text_of_an_error(error: Exception) -> None:
    with override_settings(ONCE_SCRUB=f"{__name__}.removed"):
        for text in (one_line(error), trace(error), whole(error)):
            assert "[removed]" in text
            assert "hunter2" not in text
    with override_settings(ONCE_SCRUB=f"{__name__}.broken"):
        for text in (one_line(error), trace(error), whole(error)):
            assert "ONCE_SCRUB failed: KeyError" in text
            assert "hunter2" not in text


def test_secrets_are_removed_as_the_page_says() -> None:
    [snippet] = re.findall(r"```python\n# shop/privacy.py\n(.*?)```", SECURITY, re.DOTALL)
    names: dict[str, Callable[[str], str]] = {}
    exec(snippet, names)
    assert names["scrub"]("dsn: Password=hunter2 x") == "dsn: Password=[removed] x"


def test_traceback_of_another_error_is_whole() -> None:
    with pytest.raises(RoutineError) as failure:
        Routine(function=print, name="")
    assert len(trace(failure.value).splitlines()) > 4
    assert 'routines/base.py"' in trace(failure.value)


def test_traceback_of_a_coroutine_begins_at_the_body() -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        raise LookupError("no such currency")

    with pytest.raises(LookupError) as failure:
        Routine(function=body, name="shop.seed").call(None)
    text = trace(failure.value)
    assert "During handling" not in text
    assert text.splitlines()[1].endswith(", in body")
