"""Prove that this deployment can keep the promise, for each database that has routines.

The lock excludes, a silent holder is evicted, there are connections and privileges enough. Harmless
while routines run. Exit code 1 where a fault is found.
"""

import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterator

from django.core.management import CommandError
from django.core.management.base import CommandParser
from django.core.management.color import Style

from once.cli import exit_codes, output
from once.cli.options import add_database, add_flags, databases
from once.cli.output import TerminalCommand
from once.doctor.deployment import Finding, Level
from once.routines.registry import Registry
from once.text import escaped

USAGE = ""

#: Columns beside the messages at most; for a longer alias they stand below it.
_INDENT = 40


def add_arguments(parser: CommandParser) -> None:
    add_database(parser, "Only this database, with routines or without.")
    add_flags(parser, "--json")


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    from once.doctor import examination  # and all probes, which no other subcommand needs

    findings: list[Finding] = []
    for finding in examination.examine(registry, databases(registry, options)):
        findings.append(finding)
        if not options.as_json:
            for line in _lines(finding, command.style, options.verbosity):
                command.stdout.write(line)
            command.stdout.flush()
    if options.as_json:
        output.print_json(command, examination.to_json(findings))
    faults = [f"{each.id} ({each.database})" for each in findings if each.level is Level.FAULT]
    if faults:
        message = f"This deployment cannot keep the promise yet: {', '.join(faults)}."
        raise CommandError(message, returncode=exit_codes.FAILED)


def _lines(finding: Finding, style: Style, verbosity: int) -> Iterator[str]:
    """Yield a finding, fit for a terminal; at verbosity 0 only what is wrong."""
    if finding.level is Level.OK and not verbosity:
        return
    level = output.painted(style, finding.level, 7)
    begin = f"{finding.database}  {level}  {finding.id:<10}  "
    indent = " " * (len(finding.database) + len("  warning  ") + 12)
    if len(indent) > _INDENT:
        yield begin.rstrip()
        begin = indent = " " * 4
    width = max(40, shutil.get_terminal_size().columns - len(indent))
    next_step = [f"Next: {finding.hint}"] if finding.hint else []
    for text in map(escaped, [finding.message, *next_step]):
        for line in textwrap.wrap(text, width, break_on_hyphens=False):
            yield f"{begin}{line}"
            begin = indent
