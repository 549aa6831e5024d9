"""Migrations: whole processes of a project that has many of them, all applied.

An entrypoint pays that at each start. Django's commands load every migration; ``once`` reads their
names.
"""

from collections.abc import Iterator
from functools import partial

from benchmarks.figures import FLOOR, Figure, Row
from benchmarks.project import migration_files
from benchmarks.stage import Stage, on_server
from benchmarks.timing import interleaved, seconds

__all__ = ["figures"]

#: Apps of the project, and migrations of each.
APPS, EACH = 20, 40
ROUTINES = 10


def figures(stage: Stage) -> Iterator[Figure]:
    """Seconds of the processes; the floor is ``migrate --check``, or a server without ``once``."""
    apps = ",".join(migration_files.history(APPS, EACH))
    with on_server(stage.url, stage.rounds) as own:

        def process(*arguments: str, app: str = "once,", **further: str) -> None:
            own.run(
                *own.manage(*arguments),
                BENCHMARK_APPS=app + apps,
                BENCHMARK_ROUTINES=f"{ROUTINES}",
                **further,
            )

        cases = {
            "migrate": partial(process, "migrate"),
            "once run --migrate": partial(process, "once", "run", "--migrate"),
            "migrate --check": partial(process, "migrate", "--check"),
            "once wait": partial(process, "once", "wait"),
            "server": partial(process, "floor", ONCE_STARTUP_COMMANDS="floor"),
            "bare server": partial(process, "floor", app=""),
        }
        for name in cases:  # in this order: does what there is to do, and writes bytecode
            cases[name]()
        timed = {name: partial(seconds, case) for name, case in cases.items()}
        found = interleaved(timed, stage.times(15))
    shown = {
        "whole `manage.py` process, {}: `once run --migrate`": {
            FLOOR: "migrate --check",
            "migrate": "migrate",
            "once": "once run --migrate",
        },
        "whole `manage.py` process, {}: `once wait`": {
            FLOOR: "migrate --check",
            "once": "once wait",
        },
        "start of a server, {}": {FLOOR: "bare server", "once": "server"},
    }
    for title, contenders in shown.items():
        row = Row(measure="migrations", title=title.format(f"{APPS * EACH} migrations"))
        for name, case in contenders.items():
            yield Figure(row=row, contender=name, values=found[case])
