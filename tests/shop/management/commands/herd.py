import fcntl
import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Runs one routine after the other, each at the moment at which its barrier opens."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("barriers", nargs="+", type=Path, help="files named after routines")

    def handle(self, *, barriers: list[Path], **options: Any) -> None:
        print("ready", flush=True)
        for barrier in barriers:
            code = 0
            with barrier.open() as gate:
                fcntl.flock(gate, fcntl.LOCK_SH)  # the test holds it exclusively until all are here
                try:
                    call_command("once", "run", barrier.name, verbosity=0)
                except CommandError as error:
                    code = error.returncode
                    self.stderr.write(str(error))
            answer = {"name": barrier.name, "code": code, "pid": os.getpid()}
            print(json.dumps(answer), flush=True)
