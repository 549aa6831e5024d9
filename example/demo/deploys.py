"""The first two acts: a deploy on an empty database, and one that starts many workers at once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from example.demo import observations, pages
from example.demo.account import Account
from example.demo.processes import Gate
from example.demo.servers import Server, Servers, release_environment
from example.demo.stage import ENTRYPOINT, ActFailed, Stage

__all__ = ["first_deploy", "second_deploy"]


def first_deploy(stage: Stage, replicas: int) -> Account:
    """Replicas run their entrypoint on the empty database at the same moment."""
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
    stage.say(
        f"Release 1: {replicas} replicas ran `once run --migrate` on an empty database at the same "
        f"moment, in {seconds:.1f} s."
    )
    account = Account(1, "replica")
    account.note_processes(children)
    account.note_migrations(stage, children)
    account.note_effects(stage)
    return account


def second_deploy(
    stage: Stage, servers: Servers, count: int, workers: int
) -> tuple[Account, list[Server]]:
    """Gunicorn's workers start on release 2, which has a routine more, and serve."""
    gate = Gate()
    started = [servers.start(2, workers, gate=gate) for _ in range(count)]
    masters = [server.process for server in started]
    total = count * workers
    stage.await_events(masters, "loaded", total)
    begun = gate.open()
    stage.await_events(masters, "booted", total)
    seconds = max(observations.times(masters, "booted").values()) - begun
    stage.say(
        f"Release 2, with a routine more: {count} gunicorns booted {workers} workers each "
        f"at the same moment, in {seconds:.1f} s."
    )
    asked = _ask_all(started, times=4 * workers)
    answered = len(observations.times(masters, "answered"))
    stage.say(f"{asked} requests were answered, by {answered} of {total} workers.")
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
