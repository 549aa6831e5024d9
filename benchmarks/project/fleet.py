"""Processes of one contender, forked from one that has Django loaded, that start at once.

Arguments: contender, number of processes, path of the barrier, and "apart" where each is to have a
routine of its own.
"""

import resource
import sys
from pathlib import Path

import django
from django.db import connection, connections

__all__: list[str] = []


def main() -> None:
    django.setup()
    from benchmarks.contenders import contenders
    from tests.shop.fleet import fork

    name, count, barrier, *apart = sys.argv[1:]
    [contender] = contenders([name])
    contender.prepare(1)
    connection.ensure_connection()  # imports what each would import
    connections.close_all()

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
