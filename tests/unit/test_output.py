"""What the command writes: nothing that a terminal obeys, and nothing that it cannot show."""

import io
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from once.cli.output import Terminal


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
