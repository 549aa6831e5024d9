"""The first acts: a deploy on an empty database, without and with ``once``, and many workers."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from example.demo import observations, pages, truth
from example.demo.account import Account
from example.demo.databases import Database
from example.demo.processes import Gate, Process
from example.demo.servers import Server, Servers, release_environment
from example.demo.stage import ENTRYPOINT, ActFailed, Stage

__all__ = ["first_deploy", "second_deploy", "without_once"]

#: What an entrypoint without ``once`` calls: ``migrate``, then the functions of the routines.
SEED = ("manage.py", "seed")


def without_once(stage: Stage, database: Database, replicas: int) -> None:
    """Replicas start as in :func:`first_deploy`, but without ``once``: the control."""
    stage.begin(
        f"Control, without django-once: {replicas} replicas `migrate` an empty database and load "
        "the data, all at the same moment"
    )
    gate = Gate()
    environment = {**release_environment(1), "DATABASE_URL": database.url}
    children = [
        stage.processes.start(f"control {number}", SEED, environment, gate=gate)
        for number in range(1, replicas + 1)
    ]
    stage.await_events(children, "loaded", replicas)
    gate.open()
    stage.say(f"    {_crashes(stage, children)}")
    again = [
        stage.processes.start(f"{child.name} again", SEED, environment)
        for child in children
        if child.returncode
    ]
    if again:
        stage.say(f"    Started again: {_crashes(stage, again)}")
    down = sum(bool(child.returncode) for child in again)
    stage.say(f"    Replicas that do not come up: {down} of {replicas}.")
    ((places,),) = database.rows("SELECT count(*) FROM geography_place")
    stage.say(f"    Places in the database: {places:,}. There should be {truth.PLACES:,}.\n")


def _crashes(stage: Stage, children: list[Process]) -> str:
    """Wait until all have ended; return how many crashed, and by which errors."""
    for child in children:
        stage.await_exit(child)
    crashed = [child for child in children if child.returncode]
    errors = Counter(_error(child) for child in crashed)
    kinds = ", ".join(f"{times} x {error}" for error, times in errors.items())
    return f"{len(crashed)} of {len(children)} crashed{f' ({kinds})' if kinds else ''}."


def _error(child: Process) -> str:
    """Return the name of the exception that a child ended with, from its traceback."""
    names = re.findall(r"^(?:\w+\.)+(\w+): ", child.log(), re.MULTILINE)
    return names[-1] if names else f"exit code {child.returncode}"


def first_deploy(stage: Stage, replicas: int) -> Account:
    """Replicas run their entrypoint on the empty database at the same moment."""
    stage.begin(
        f"Release 1: {replicas} replicas run `once run --migrate` on an empty database, all at "
        "the same moment"
    )
    gate = Gate()
    children = [
        stage.processes.start(f"replica {number}", ENTRYPOINT, release_environment(1), gate=gate)
        for number in range(1, replicas + 1)
    ]
    stage.await_events(children, "loaded", replicas)
    begun = gate.open()
    for child in children:
        stage.await_end(child)
    seconds = max(child.printed_at for child in children) - begun
    stage.say(f"    All are done after {seconds:.1f} s. In the table, a routine is")
    stage.say("    - wanted by the processes that found it not done yet,")
    stage.say("    - committed as often as its effects are there.")
    account = Account(1, "replica")
    account.note_processes(children)
    account.note_migrations(stage, children)
    account.note_effects(stage)
    return account


def second_deploy(
    stage: Stage, servers: Servers, count: int, workers: int
) -> tuple[Account, list[Server]]:
    """Gunicorn's workers start on release 2, which has a routine more, and serve."""
    stage.begin(
        f"Release 2, with one routine more: {count} gunicorns boot {workers} workers each, all at "
        "the same moment"
    )
    gate = Gate()
    started = [servers.start(2, workers, gate=gate) for _ in range(count)]
    masters = [server.process for server in started]
    total = count * workers
    stage.await_events(masters, "loaded", total)
    begun = gate.open()
    stage.await_events(masters, "booted", total)
    seconds = max(observations.times(masters, "booted").values()) - begun
    stage.say(f"    All are up after {seconds:.1f} s.")
    asked = _ask_all(started, times=4 * workers)
    answered = len(observations.times(masters, "answered"))
    stage.say(f"    {asked} requests were answered, by {answered} of {total} workers.")
    account = Account(2, "worker")
    account.note_processes(masters)
    account.note_effects(stage)
    return account, started


def _ask_all(servers: list[Server], times: int) -> int:
    """Ask every server for every page that often, many at a time; how many requests."""
    asked = list(product(servers, pages.reads())) * times
    with ThreadPoolExecutor(times) as pool:
        problems = pool.map(lambda one: pages.ask(one[0].address, one[1]), asked)
        wrong = Counter(problem for problem in problems if problem)
    if wrong:
        what = "\n".join(f"    {problem} ({count} times)" for problem, count in wrong.items())
        raise ActFailed(f"Requests were not answered rightly:\n{what}")
    return len(asked)
