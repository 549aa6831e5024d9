"""Say how an attempt ended, and what a person does about its routine."""

from django.utils.translation import gettext_noop

from once.databases import tables
from once.models import Attempt, State
from once.words import gettext

_ENDS = {
    State.FAILED: gettext_noop("Attempt {} on {} (pid {}) failed"),
    State.LOST: gettext_noop("Attempt {} on {} (pid {}) died, or was cut off"),
    State.RUNNING: gettext_noop("Attempt {} on {} (pid {}) ended without a word"),
}
_INTERRUPTED = gettext_noop("Attempt {} on {} (pid {}) was interrupted")


def describe(attempt: Attempt) -> str:
    """Say how an attempt ended that did not succeed, as a sentence without its full stop."""
    what = gettext(_ENDS.get(State(attempt.state), _INTERRUPTED))
    why = f": {attempt.error_line}" if attempt.state == State.FAILED else ""
    return f"{what.format(attempt.number, attempt.host, attempt.pid)}{why}".rstrip(".")


def hint(name: str, *, is_gone: bool = False) -> str:
    """Say what to do about a held routine."""
    why = gettext("Held, since retry=False: find out what its last attempt did.")
    if is_gone:
        why = gettext(
            "Held, since its last attempt was deleted from {}, which said where to go on: find out "
            "what that did, or restore it."
        ).format(tables.name("attempt"))
    then = gettext(
        "Then `manage.py once reset {name}` has it tried again, or `manage.py once run --fake "
        "{name}` records it as done."
    )
    return f"{why} {then.format(name=name)}"


def earlier(name: str, *, is_overtaken: bool) -> str:
    """Say what to do about a routine whose value is an earlier one."""
    later = gettext("is recorded")
    if is_overtaken:
        later = gettext("was begun, and is not done yet")
    return gettext(
        "The value of its state is an earlier one, and is left alone: a later value {later}. After "
        "a rollback, `manage.py once run --revert {name}` brings this value back."
    ).format(later=later, name=name)


def wanted() -> str:
    """Say what follows a person's wish that a routine is run."""
    return gettext("A person wants it run now: `manage.py once work` takes it at its next look.")


def takes_over() -> str:
    """Say what follows an attempt that was left half-way, if nothing else is in the way."""
    return gettext("The next `manage.py once run` or server start takes over.")
