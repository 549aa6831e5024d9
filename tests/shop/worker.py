"""A process that runs the routine it is told, at the moment at which the barrier opens."""

import fcntl
import json
import os
import sys
from pathlib import Path

import django
from django.core.management import CommandError, call_command

__all__: list[str] = []


def main() -> None:
    django.setup()
    print("ready", flush=True)
    for line in sys.stdin:
        name, barrier = line.split()
        code = 0
        with Path(barrier).open() as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)  # the test holds it exclusively until all are here
            try:
                call_command("once", "run", name, verbosity=0)
            except CommandError as error:
                code = error.returncode
                print(error, file=sys.stderr)
        print(json.dumps({"name": name, "code": code, "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    main()
