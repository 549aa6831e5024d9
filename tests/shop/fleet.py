"""Many processes, forked from one to start quickly, that run what is pending all at once."""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

import django
from django.core.management import CommandError, call_command
from django.db import connections

__all__: list[str] = []


def main() -> None:
    django.setup()
    call_command("once", "run", "--plan", verbosity=0)  # imports what each would import
    connections.close_all()
    count, barrier = int(sys.argv[1]), Path(sys.argv[2])
    for _ in range(count):
        if not os.fork():
            _run(barrier)
            os._exit(0)
    print("ready", flush=True)
    for _ in range(count):
        os.wait()


def _run(barrier: Path) -> None:
    code, message = 0, ""
    with barrier.open() as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)  # the test holds it exclusively until all are here
    try:
        call_command("once", "run", verbosity=0)
    except CommandError as error:
        code, message = error.returncode, str(error)
    answer = {"code": code, "pid": os.getpid(), "at": time.time(), "message": message}
    os.write(1, (json.dumps(answer) + "\n").encode())  # whole, beside those of others


if __name__ == "__main__":
    main()
