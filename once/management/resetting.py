"""Makes routines pending again, for ``once reset``: which may be, and who is asked before."""

import sys
from collections import Counter
from collections.abc import Sequence

from django.core.management import CommandError
from django.core.management.base import OutputWrapper
from django.core.management.color import Style

from once.decisions import Decision, Why, carry_out, refusal
from once.exceptions import UnknownRoutine
from once.management import exits
from once.management.reporting import lines
from once.registry import Registry
from once.results import Result
from once.status import RoutineState, Status

__all__ = ["confirm", "reset", "resettable"]


def resettable(meant: Sequence[Status], names: Sequence[str], out: OutputWrapper) -> list[Status]:
    """Those that there is something to reset of.

    Args:
        meant: what the names mean.
        names: as they were given: what is in memory only is meant where it is named in full.
        out: where it is told of those that are pending anyway.

    Raises:
        CommandError: one cannot be reset here and now.
        UnknownRoutine: one keeps no record.

    """
    meant = [one for one in meant if one.kind != "process" or one.name in names]
    for name, count in Counter(one.name for one in meant).items():
        if count > 1:
            where = ", ".join(str(one.database) for one in meant if one.name == name)
            raise CommandError(
                f"{name} is recorded in several databases: {where}. Name one by --database.",
                returncode=exits.USAGE,
            )
    return [one for one in meant if _may_reset(one, out)]


def confirm(chosen: Sequence[Status], out: OutputWrapper, style: Style) -> None:
    """Ask where effects may come to exist twice."""
    lost = [one for one in chosen if one.state in (RoutineState.COMPLETED, RoutineState.HELD)]
    if not lost:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(
            f"This has routines run again that ran: {', '.join(one.name for one in lost)}. "
            "Where there is no terminal to ask, confirm by --no-input.",
            returncode=exits.USAGE,
        )
    out.write("These ran, or may have run, and will run again:")
    for line in lines(lost, style):
        out.write(f"  {line}")
    try:
        answer = input("Type 'yes' to continue: ")
    except EOFError:
        answer = "no"
    if answer.strip().lower() != "yes":
        raise CommandError("Nothing was reset.", returncode=exits.NOT_DONE)


def reset(found: Registry, chosen: Sequence[Status], *, user: str, reason: str) -> list[Result]:
    """Make them pending again."""
    return [carry_out(Decision.RESET, one, found, user=user, reason=reason) for one in chosen]


def _may_reset(one: Status, out: OutputWrapper) -> bool:
    refused = refusal(Decision.RESET, one)
    if refused is None:
        return True
    if refused.why is Why.NEEDLESS:
        out.write(f"  {refused.message}")
        return False
    if refused.why is Why.UNRECORDED:
        raise UnknownRoutine(refused.message)
    code = exits.NOT_DONE if refused.why is Why.NOT_NOW else exits.USAGE
    raise CommandError(refused.message, returncode=code)
