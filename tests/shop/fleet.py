"""Many processes, forked from one to start quickly, that run what is pending all at once."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import django
from django.core.management import CommandError, call_command
from django.db import connections

__all__ = ["fork"]


def main() -> None:
    django.setup()
    call_command("once", "run", "--plan", verbosity=0)  # imports what each would import
    connections.close_all()
    fork(int(sys.argv[1]), Path(sys.argv[2]), lambda number: _run())


def fork(count: int, barrier: Path, function: Callable[[int], Mapping[str, object]]) -> None:
    """Have that many processes call a function with their numbers, and wait for their end.

    They begin when nobody holds the lock of the file ``barrier`` any more, which is to be held
    until this printed "ready". Each prints what the function returned as one line of JSON.
    """
    for number in range(count):
        if not os.fork():
            with barrier.open() as gate:
                fcntl.flock(gate, fcntl.LOCK_SH)
            answer = {**function(number), "pid": os.getpid(), "at": time.time()}
            os.write(1, (json.dumps(answer) + "\n").encode())  # whole, beside those of others
            os._exit(0)
    print("ready", flush=True)
    for _ in range(count):
        os.wait()


def _run() -> dict[str, object]:
    try:
        call_command("once", "run", verbosity=0)
    except CommandError as error:
        return {"code": error.returncode, "message": str(error)}
    return {"code": 0, "message": ""}


if __name__ == "__main__":
    main()
