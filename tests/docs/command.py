"""The options of ``manage.py once``, as its page has them: ``python -m tests.docs.command``."""

import re
from argparse import Action, ArgumentParser, _SubParsersAction

from django.core.management.base import BaseCommand

from tests.project import ROOT

__all__ = ["PAGE", "subcommands", "with_options"]

PAGE = ROOT / "docs" / "reference" / "command.md"

_SECTION = re.compile(r"(<!-- options of (\w+) -->\n).*?(?=<!-- end of options -->)", re.DOTALL)


def subcommands() -> dict[str, list[Action]]:
    """Each subcommand, with its arguments and options: Django's own left out."""
    from once.management.commands.once import Command

    parser = Command().create_parser("manage.py", "once")
    [found] = [each for each in parser._actions if isinstance(each, _SubParsersAction)]
    return {name: _own(each) for name, each in found.choices.items()}


def with_options(page: str) -> str:
    """The page with the tables that the parser makes."""
    known = subcommands()
    return _SECTION.sub(lambda found: found[1] + _table(known[found[2]]), page)


def _own(parser: ArgumentParser) -> list[Action]:
    django = {(each.dest, type(each)) for each in BaseCommand().create_parser("", "")._actions}
    return [each for each in parser._actions if (each.dest, type(each)) not in django]


def _table(actions: list[Action]) -> str:
    rows = [f"| {_called(each)} | {_help(each)} |" for each in actions]
    return "\n".join(["", "| | |", "|---|---|", *rows, "", ""])


def _called(action: Action) -> str:
    names = "`, `".join(action.option_strings)
    return f"`{' '.join(filter(None, (names, _value(action))))}`"


def _value(action: Action) -> str:
    return str(action.metavar or "") if action.nargs != 0 else ""


def _help(action: Action) -> str:
    # What looks like code in a terminal is code here.
    return re.sub(
        r"(?<!`)(?<!\w)('[\w./]+\*[\w.]*'|call:KEY|_ \. : / @ \+ -)", r"`\1`", action.help or ""
    )


if __name__ == "__main__":
    import os

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    PAGE.write_text(with_options(PAGE.read_text()))
