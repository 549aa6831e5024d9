"""Start, kill and replace many processes, and count how often each routine ran.

    pip install -e ".[example]" && python -m example

What it does: an embedded PostgreSQL starts. First comes a control without ``once``: replicas
migrate an empty database and load the data, all at the same moment; some crash. Then three
releases of a project come to another empty database.

1.  Three replicas run their entrypoint, ``once run --migrate``, at the same moment.
2.  Three gunicorn masters boot four workers each, all released at once, with one routine more,
    which goes through twenty thousand rows in batches; requests are answered.
3.  A rolling deploy, under a constant load of requests that a balancer sends to the servers which
    say that they are ready. Another version of that routine is due. The job that runs it is killed
    (SIGKILL) half-way, and so is the worker that has told a partner, an HTTP server outside of the
    database, of the new release.

After each release, a table says of each routine how many processes wanted it, how often its body
committed, who ran it, and how long the others waited. The last table compares what there is with
what there must be. Its witnesses do not know of ``once``: each body leaves a row in
``geography_effect`` in its own transaction, each place counts how often it was changed, the
partner counts how often it was told, and whoever sends requests counts what failed. The exit code
is 0 where all is right, 1 where not, and 2 where there was nothing to run it on.

``DATABASE_URL`` points it at another PostgreSQL, where it makes a database of its own and drops
it; ``--sqlite`` does the same on SQLite.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

from example.demo import databases
from example.demo.databases import Database, UnusableError

WRONG = 1
UNUSABLE = 2
INTERRUPTED = 130


def main() -> int:
    """Run the demonstration; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m example",
        description="Start, kill and replace many processes on one database, and count how often "
        "each routine of the example ran.",
        epilog="DATABASE_URL, if set, names a PostgreSQL to use instead of the embedded one.",
    )
    parser.add_argument("--sqlite", action="store_true", help="use SQLite, not PostgreSQL")
    for name, default in (("replicas", 3), ("servers", 3), ("workers", 4)):
        parser.add_argument(f"--{name}", type=_positive, default=default, metavar="N")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return demonstrate(arguments)
    except UnusableError as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("Interrupted; everything that was started is ended.", file=sys.stderr)
        return INTERRUPTED


def demonstrate(arguments: argparse.Namespace) -> int:
    """Play every act on a new database, print what is proved, and clean up."""
    for needed in ("django", "environ", "once", "gunicorn", "pycountry"):
        if find_spec(needed) is None:
            raise UnusableError(f'{needed} is not installed. Run `pip install -e ".[example]"`.')
    from example.demo.play import play

    with tempfile.TemporaryDirectory(
        prefix="once-example-", ignore_cleanup_errors=True
    ) as temporary:
        directory = Path(temporary)
        begun = time.monotonic()
        if not arguments.sqlite and "DATABASE_URL" not in os.environ:
            print("Starting an embedded PostgreSQL ...", flush=True)
        with _database(arguments, directory) as database, database.another() as control:
            print(f"{database.title}: ready after {time.monotonic() - begun:.1f} s.\n", flush=True)
            wrong = play(
                database,
                control,
                directory,
                replicas=arguments.replicas,
                servers=arguments.servers,
                workers=arguments.workers,
            )
    for problem in wrong:
        print(f"WRONG: {problem}")
    if wrong:
        return WRONG
    print("Nothing took effect twice, nothing was lost, no old version ran after a new one.")
    return 0


def _database(arguments: argparse.Namespace, directory: Path) -> AbstractContextManager[Database]:
    if arguments.sqlite:
        return databases.sqlite(directory)
    if url := os.environ.get("DATABASE_URL"):
        return databases.on_server(url)
    return databases.embedded_postgresql(directory / "postgresql")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
