"""Run what is pending for the role of this process, again and again, until it is told to stop.

It also runs routines with `startup=False`. What a person wants run now, in the admin, it tries at
once. It logs as a server does, and prints nothing.
"""

import logging
import random
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandParser
from django.db import Error

from once import conf
from once.cli.output import TerminalCommand
from once.databases import database
from once.engine import executor, shutdown
from once.engine.options import RunOptions
from once.exceptions import OnceError
from once.log import ensure_handler, forget, news, tell
from once.models import Trigger
from once.record import wishes, workers
from once.results import Outcome, Result
from once.routines import in_memory
from once.routines.base import Routine
from once.routines.registry import Registry
from once.text import one_line

USAGE = ""

#: Seconds between two looks: at least, and at most.
_SHORTEST, _LONGEST = 0.5, 5.0
#: The name of all of it in the memory of the log.
_WORK = "work"


def add_arguments(parser: CommandParser) -> None:
    """Add none."""


def handle(command: TerminalCommand, registry: Registry, options: Namespace) -> None:
    run_options = RunOptions(
        trigger=Trigger.COMMAND,
        # Because other routines may be due, it waits for no other process: it looks again.
        wait=False,
        keep_going=True,
        respects_backoff=True,
        role=conf.role(conf.WORKER),
    )
    ensure_handler()
    in_memory.run(registry.process)
    try:
        tell(logging.INFO, "work_began", role=run_options.role)
        _work(registry, run_options)
    except shutdown.Signalled as error:
        # Because a service that is told to stop has not failed, the exit code is 0.
        tell(logging.INFO, "work_ended", message=str(error))


def _work(registry: Registry, run_options: RunOptions) -> None:
    """Look for what is pending, and run it. The pause grows while there is nothing to do."""
    pause = _SHORTEST
    while True:
        has_run = False
        for using in registry.databases:
            # A signal breaks a body off, but no look: it would leave a connection half-way.
            with shutdown.deferred():
                has_run |= _look(using, registry, run_options)
        pause = _SHORTEST if has_run else min(_LONGEST, 2 * pause)
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311


def _look(using: str, registry: Registry, run_options: RunOptions) -> bool:
    """Run what is pending in a database, and return whether a routine was run.

    Each database for itself, so that a database that is away keeps no other from its work.
    """
    routines = [each for each in registry.recorded if each.using == using]
    memory = f"{_WORK} in {using}"
    try:
        results = executor.run(routines, registry, run_options)
        if wanted := _wanted(using, results):
            of_items = replace(run_options, trigger=Trigger.ITEMS)
            results += executor.run(wanted, registry, of_items)
    except ImproperlyConfigured:  # which no look mends
        raise
    except (OnceError, Error) as error:  # such as a database that is away
        reason = one_line(error)
        tell(news(logging.WARNING, memory, reason), "work_hindered", reason=reason)
        return False
    forget(memory)
    with suppress(Error):  # such as of a database without tables, of which the run has told
        workers.tell(using, str(run_options.role))
    _tell_left([each for each in results if run_options.takes(each.routine)])
    return any(each.outcome is Outcome.RAN for each in results)


def _wanted(using: str, results: Sequence[Result]) -> list[Routine]:
    """Return the routines, of those that are done, whose failed items a person wants tried."""
    done = [each.routine for each in results if each.outcome is Outcome.ALREADY_DONE]
    batched = [each for each in done if each.over]
    if not batched:
        return []
    with database(using).reading(), database(using).statements():
        names = wishes.wanted(using, [each.name for each in batched])
    return [each for each in batched if each.name in names]


def _tell_left(results: Sequence[Result]) -> None:
    """Log what is left undone, and why: each once, as long as that lasts."""
    for result in results:
        name = result.routine.name
        if result.is_for_a_person:
            continue  # which the log of the run says
        if result.outcome is Outcome.SKIPPED:
            level = news(logging.INFO, f"{_WORK} {name}", result.message)
            tell(level, "work_left", routine=name, message=result.message)
        else:
            forget(f"{_WORK} {name}")
