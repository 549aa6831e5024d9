"""What the command writes: nothing that a terminal obeys, and nothing that it cannot show."""

import io
import re
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from once.cli.output import Terminal, folded, lines
from once.status.state import RoutineState, Status


def written(text: str, encoding: str = "utf-8") -> str:
    """What a text becomes on a terminal of that encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    Terminal(stream).write(text)
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("web\x1b[2J\x1b[8mhidden\x9b1A", r"web\x1b[2J\x1b[8mhidden\x9b1A"),
        ("gone\rOK\b\x7f", r"gone\rOK\x08\x7f"),
        ("\u202edekaf\u2066 \u2028", r"\u202edekaf\u2066 \u2028"),
        ("file \udcff", r"file \udcff"),
        ("one\n\ttwo déjà 漢🎉", "one\n\ttwo déjà 漢🎉"),
        ("\rbar", "\rbar"),
    ],
    ids=["clipboard", "screen", "overwrites", "order", "half", "text", "progress"],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert written(text).replace("\n", "") == shown.replace("\n", "")


def test_what_an_encoding_lacks_is_escaped() -> None:
    assert written("déjà 漢🎉", "ascii") == r"d\xe9j\xe0 \u6f22\U0001f389"
    assert written("déjà 漢🎉", "latin-1") == r"déjà \u6f22\U0001f389"


def test_colours_of_the_command_pass() -> None:
    style = color_style(force_color=True)
    for paint in (style.SUCCESS, style.ERROR, style.WARNING, style.NOTICE, style.MIGRATE_HEADING):
        assert written(paint("done")) == paint("done")


def test_wrapper_of_django_takes_it_for_the_stream() -> None:
    out = io.StringIO()
    terminal: Any = Terminal(out)
    wrapper = OutputWrapper(terminal)
    wrapper.write("a\x07", ending="")
    wrapper.write("b")
    wrapper.flush()
    assert not wrapper.isatty()
    assert out.getvalue() == "a\\x07b\n"


class Screen(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True


#: What a person, a process or a server may have written.
HOSTILE = "\x1b[31mred \x1b[2J\x07" + "x" * 200 + " 漢字" * 40 + "\n[X] forged\tand\u202e more " * 3


def test_status_fits_a_terminal_with_hostile_text_in_every_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    style, out = color_style(force_color=True), Screen()
    status = Status(
        name=HOSTILE,
        version=1,
        scope=HOSTILE,
        kind="batched",
        state=RoutineState.FAILED,
        database=HOSTILE,
        started_at=datetime.now(UTC),
        host=HOSTILE,
        pid=7,
        retry_at=datetime.now(UTC),
        error=HOSTILE,
        message=HOSTILE,
    )
    for line in lines([status], style):
        Terminal(out).write(f"{line}\n")
    shown = out.getvalue()
    assert r"\x1b[31mred \x1b[2J\x07xx" in shown
    assert shown.count("\x1b[") == shown.count("\x1b[31;1m") + shown.count("\x1b[0m") == 2
    for line in shown.splitlines():
        plain = re.sub(r"\x1b\[[\d;]*m", "", line)
        assert sum(2 if "漢" <= each <= "字" or each in "漢字" else 1 for each in plain) <= 80, line
    assert sum(line.startswith("[") for line in shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("fits as it is", ["fits as it is"]),
        (
            "[X] a  v1  completed  2026-11-27 08:15:02 UTC  in 3s",
            ["[X] a  v1  completed", "    2026-11-27 08:15:02 UTC  in 3s"],
        ),
        (
            "    Held, since its last attempt was deleted.",
            ["    Held, since its last attempt was", "        deleted."],
        ),
        (
            "\x1b[31;1m" + "x" * 45 + "\x1b[0m",
            ["\x1b[31;1m" + "x" * 40, "    " + "x" * 5 + "\x1b[0m"],
        ),
    ],
    ids=["short", "between details", "between words", "in a word"],
)
def test_line_is_folded_where_it_reads_best(line: str, pieces: list[str]) -> None:
    assert list(folded(line, 40)) == pieces


@pytest.mark.parametrize("text", ["\r" + "x" * 200, '{"key": "' + "x y" * 90 + '"}'])
def test_bar_and_json_are_not_folded(text: str) -> None:
    out = Screen()
    Terminal(out).unfolded.write(text)
    assert out.getvalue() == text


@pytest.mark.parametrize("line", [" " * 90 + "^", " " * 75 + "漢字" * 5], ids=["caret", "wide"])
def test_line_that_begins_far_right_is_folded_to_its_end(line: str) -> None:
    pieces = list(islice(folded(line, 80), 20))
    assert len(pieces) < 20
    assert "".join(pieces).replace(" ", "") == line.strip(" ")


def test_deep_line_is_folded_between_words() -> None:
    words = "lorem ipsum dolor sit amet consectetur"
    pieces = list(islice(folded(" " * 30 + words, 40), 20))
    assert {word for piece in pieces for word in piece.split()} == {*words.split()}


@pytest.mark.parametrize(
    "place",
    [f'  File "/{"x y" * 30}.py", line 3', '  File "a b.py", line 3'],
    ids=["long", "short"],
)
def test_place_in_a_traceback_stays_whole_because_it_is_copied(place: str) -> None:
    first, _ = folded(f"{place}, in {'z' * 50}", 60)
    assert first.startswith(place)
    assert list(folded(place, 60)) == [place]


def test_text_for_no_terminal_has_whole_lines() -> None:
    out = io.StringIO()
    Terminal(out).write("x y " * 90)
    assert out.getvalue() == "x y " * 90
