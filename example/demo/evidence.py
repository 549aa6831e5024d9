"""What is proved at the end, by the database, by the partner, and by who sent the requests."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from example.demo import pages, truth
from example.demo.databases import Database
from example.demo.load import Load
from example.demo.partner import Partner
from example.demo.report import Proof
from example.demo.servers import release_environment
from example.demo.stage import Stage

__all__ = ["proofs"]

STATUS = ("manage.py", "once", "status", "--check", "--json")
RELEASES = tuple(truth.EFFECTS)

# Of an older release, at a routine that a newer release had begun.
BACKWARDS = """
    SELECT count(*) FROM {table} one WHERE EXISTS (
        SELECT * FROM {table} other WHERE other.routine = one.routine
        AND other.release > one.release AND other.id < one.id
    )
"""


def proofs(stage: Stage, load: Load) -> list[Proof]:
    """What must be so, and what is."""
    return [
        *_data(stage.database),
        *_order(stage.database),
        _status(stage),
        *_announcements(stage.partner),
        *_requests(stage.database, load),
    ]


def _data(database: Database) -> Iterator[Proof]:
    for what, (where, must) in truth.DATA.items():
        count = _one(database, f"SELECT count(*) FROM {where}")
        yield Proof("database", what, f"{count:,}", f"{must:,}")

    changed = dict(database.rows("SELECT changed, count(*) FROM geography_place GROUP BY changed"))
    places = f"{truth.PLACES:,} twice"
    found = ", ".join(f"{rows:,} {_times(often)}" for often, rows in sorted(changed.items()))
    yield Proof("database", "places changed, by versions 1 and 2 of fold_names", found, places)
    names = database.rows("SELECT name, search_name FROM geography_place")
    folded = sum(truth.folded(name) == search_name for name, search_name in names)
    yield Proof("database", "places searched by version 2", f"{folded:,}", f"{truth.PLACES:,}")


def _order(database: Database) -> Iterator[Proof]:
    effects = Counter(
        release for (release,) in database.rows("SELECT release FROM geography_effect")
    )
    found = [effects.pop(release, 0) for release in RELEASES] + list(effects.values())
    must = [sum(bodies.values()) for bodies in truth.EFFECTS.values()]
    yield Proof("database", "bodies committed by release 1, 2, 3", _listed(found), _listed(must))

    for what, table in (("bodies", "geography_effect"), ("attempts", "once_attempt")):
        backwards = _one(database, BACKWARDS.format(table=table))
        yield Proof("database", f"{what} of an old release after a new one", str(backwards), "0")


def _status(stage: Stage) -> Proof:
    status = stage.processes.start("status", STATUS, release_environment(RELEASES[-1]))
    stage.await_end(status)
    known = json.loads(status.stdout.read_text())["routines"]
    done = [one for one in known if one["state"] == "completed" and one["scope"] != "process"]
    must = {name for bodies in truth.EFFECTS.values() for name in bodies} | {truth.ANNOUNCEMENT}
    return Proof("once status", "routines that are done", str(len(done)), str(len(must)))


def _announcements(partner: Partner) -> Iterator[Proof]:
    acted = Counter(partner.releases.values())
    asked: Counter[int] = Counter()
    for key, times in partner.asked.items():
        asked[partner.releases[key]] += times
    for what, counts, must in (
        ("times it acted on release 1, 2, 3", acted, (1, 1, 1)),
        ("times it was told of release 1, 2, 3", asked, (1, 1, 2)),
    ):
        found = [counts[release] for release in RELEASES]
        yield Proof("partner", what, _listed(found), _listed(must))


def _requests(database: Database, load: Load) -> Iterator[Proof]:
    total = load.sent.total()
    yield Proof("clients", "requests that failed", f"{load.failed} of {total:,}", f"0 of {total:,}")
    visits = _one(database, "SELECT count(*) FROM geography_visit")
    must = load.sent[pages.VISIT]
    yield Proof("database", "visits posted by clients", f"{visits:,}", f"{must:,}")


def _one(database: Database, sql: str) -> int:
    ((value,),) = database.rows(sql)
    return int(value)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


def _times(often: int) -> str:
    return {1: "once", 2: "twice"}.get(often, f"{often} times")
