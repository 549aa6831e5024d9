"""Measures what is asked for, prints the table and writes the JSON file."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import django
from django.db import connection, connections

from benchmarks import measures, table
from benchmarks.figures import Figure, Report
from benchmarks.stage import Stage, on_server


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, as Ctrl-C
    with ExitStack() as stack:
        stage = stack.enter_context(on_server(_url(options.database), options.rounds))
        _set_up(stage)
        report = Report.here(_measured(options.measures, stage), stage.server)
        connections.close_all()
    print(table.table(report))
    if options.json is not None:
        report.write(options.json)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "measures",
        nargs="*",
        metavar="MEASURE",
        help=f"what to measure, by default all of: {' '.join(measures.NAMES)}",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of each measure's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a PostgreSQL on which databases may be created; by default one is started",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.measures) - set(measures.NAMES):
        parser.error(f"no measure is called {', '.join(sorted(unknown))}")
    if options.database and not options.database.startswith(("postgres://", "postgresql://")):
        parser.error("what is measured is PostgreSQL's alone: give a postgresql:// URL")
    if find_spec("pglock") is None or find_spec("post_deploy") is None:
        parser.error('contenders are missing. Run: pip install -e ".[benchmarks]"')
    options.measures = options.measures or measures.NAMES
    return options


def _url(given: str | None) -> str:
    if given is not None:
        return given
    from tests.servers import embedded_postgresql

    # Because a COMMIT waits for the disk in production, it does here.
    url: str = embedded_postgresql(on_disk=True).get_uri()  # it ends with this process
    return url


def _set_up(stage: Stage) -> None:
    os.environ.update(stage.environment())
    django.setup()
    connection.ensure_connection()


def _measured(names: list[str], stage: Stage) -> Iterator[Figure]:
    for name in names:
        for figure in measures.measure(name, stage):
            shown = table.amount(figure.median, figure.row.unit)
            print(f"{figure.row.title}: {figure.contender}: {shown}", file=sys.stderr)
            yield figure


if __name__ == "__main__":
    main()
