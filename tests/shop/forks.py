"""Forks a process for each line that it reads: one that has loaded everything when it starts.

A line is the JSON of ``[arguments of manage.py, where to hold, log]``. The process writes what it
prints into the log, and its exit code beside it. This prints the id of each, and waits for none of
them: as long as this runs, no other process gets one of these ids.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import django
from django.core.management import call_command, execute_from_command_line
from django.db import connections

from tests.shop import steps

__all__: list[str] = []


def main() -> None:
    django.setup()
    call_command("once", "run", "--plan", verbosity=0)  # imports what each would import
    connections.close_all()
    print("ready", flush=True)
    for line in sys.stdin:
        arguments, places, log = json.loads(line)
        pid = os.fork()
        if not pid:
            _run(arguments, places, Path(log))
        print(f"forked {pid}", flush=True)


def _run(arguments: list[str], places: str, log: Path) -> NoReturn:
    out = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)
    code: object = 0
    try:
        steps.hold_at(places)
        execute_from_command_line(["manage.py", *arguments])
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    log.with_suffix(".code").write_text(f"{code}\n")
    os._exit(0)


if __name__ == "__main__":
    main()
