"""Processes of one contender, forked from one that has Django loaded, that start at once.

Arguments: contender, number of processes, path of the barrier, directory of the ledger, and "apart"
where each is to have a routine of its own.
"""

import resource
import sys
from pathlib import Path

import django
from django.db import connections

from benchmarks.project import ledger

__all__: list[str] = []

#: Number of a routine that is not measured.
_ANOTHER = 9999


def main() -> None:
    django.setup()
    from benchmarks.contenders import contenders
    from tests.shop.fleet import fork

    name, count, barrier, directory, *apart = sys.argv[1:]
    [contender] = contenders([name])
    contender.prepare(1, first=_ANOTHER)
    contender.run()  # imports what each would import
    contender.prepare(1)
    connections.close_all()
    ledger.open_in(Path(directory))

    def run(number: int) -> dict[str, object]:
        if apart:
            contender.prepare(1, first=number)
        error = ""
        try:
            contender.run()
        except Exception as problem:  # whatever it is, this process is not ready
            error = repr(problem)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"error": error, "cpu": usage.ru_utime + usage.ru_stime}

    fork(int(count), Path(barrier), run)


if __name__ == "__main__":
    main()
