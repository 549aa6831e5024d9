"""Management commands as routines, for ``once call``."""

from collections.abc import Sequence

from django.core.management import (
    BaseCommand,
    CommandError,
    call_command,
    get_commands,
    load_command_class,
)

from once.base import CALL, Routine
from once.management import exits

__all__ = ["routine"]


def routine(
    key: str,
    command: str,
    arguments: Sequence[str],
    *,
    version: int,
    using: str,
    atomic: bool,
) -> Routine:
    """What runs a command once under a key.

    Raises:
        CommandError: it cannot be called so.

    """
    _refuse_arguments(command, arguments)
    return Routine(
        function=lambda: call_command(command, *arguments),
        name=CALL + key,
        version=version,
        using=using,
        atomic=atomic,
    )


def _refuse_arguments(command: str, arguments: Sequence[str]) -> None:
    """Before anything is recorded."""
    app = get_commands().get(command)
    if app is None:
        raise CommandError(
            f"Unknown command: {command!r}. `manage.py help` lists those that there are.",
            returncode=exits.USAGE,
        )
    target = app if isinstance(app, BaseCommand) else load_command_class(app, command)
    try:
        target.create_parser("manage.py", command).parse_args(arguments)
    except CommandError as error:
        message = str(error).removeprefix("Error: ")
        raise CommandError(f"{command}: {message}", returncode=exits.USAGE) from error
