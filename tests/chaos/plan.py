"""What a round is made of: routines in several releases, and what is done to their processes."""

from dataclasses import dataclass
from random import Random

__all__ = ["DATABASES", "Event", "Plan", "Routine", "new_plan"]

#: What can happen to each kind of database, besides what happens to processes.
DATABASES = {
    "postgresql": ("end lock", "end work", "alter", "rewrite", "crash"),
    "pgbouncer": ("end lock", "end work", "alter", "rewrite", "crash", "restart pooler"),
    "mariadb": ("end lock", "end work", "alter", "crash"),
    "sqlite": ("alter",),
}
_WEIGHTS = {
    "kill": 5,
    "freeze": 5,
    "stop": 2,
    "pause": 3,
    "end lock": 3,
    "end work": 3,
    "alter": 3,
    "crash": 2,
    "deploy": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Routine:
    """A routine, as every release of the round declares it."""

    name: str
    #: ``atomic``, ``batched`` or ``external``.
    kind: str
    retry: bool
    #: ``database``, ``release`` or ``content``.
    scope: str
    after: tuple[str, ...]
    #: Its version in each release.
    versions: tuple[int, ...]
    #: How many items there are, and in each batch; whether they come from a queryset.
    items: int
    batch_size: int
    is_queryset: bool
    #: How long a body takes, in seconds.
    seconds: float
    #: Whether the body of its first attempt raises.
    fails: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happens next."""

    #: Seconds before it.
    pause: float
    what: str
    #: Chooses among those to whom it can happen.
    choice: float
    #: Whether it happens to who called a body last, if that one still lives.
    at_holder: bool
    #: How long a frozen process stays so.
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A round."""

    name: str
    routines: tuple[Routine, ...]
    #: What the file of the content scope holds in each release.
    contents: tuple[str, ...]
    events: tuple[Event, ...]
    #: Whether a crash of the server loses commits for which nobody waited.
    is_lossy: bool = False

    def label(self, routine: Routine, release: int) -> str:
        """What bodies of a release call the scope of their effects."""
        own = {"database": "", "release": f"r{release}", "content": self.contents[release]}
        return own[routine.scope]


def new_plan(seed: int, number: int, database: str, liveness: float) -> Plan:
    """The plan of a round, which depends on these only."""
    random = Random(f"{seed}/{number}")
    releases = random.randint(2, 3)
    names = [f"plant.r{n}" for n in range(random.randint(4, 7))]
    routines = [_new_routine(random, name, names[:n], releases) for n, name in enumerate(names)]
    kinds = {what: _WEIGHTS.get(what, 1) for what in (*list(_WEIGHTS)[:4], *DATABASES[database])}
    kinds["deploy"] = _WEIGHTS["deploy"]
    events = [
        Event(
            pause=random.uniform(0.02, 0.6),
            what=random.choices(list(kinds), list(kinds.values()))[0],
            choice=random.random(),
            at_holder=random.random() < 0.7,
            seconds=random.choice([0.3, 1.5, 2.0, 3.0]) * liveness,
        )
        for _ in range(random.randint(14, 24))
    ]
    return Plan(
        name=f"{seed}/{number}",
        routines=tuple(routines),
        contents=tuple(random.choice("ab") for _ in range(releases)),
        events=tuple(events),
        is_lossy=database in ("postgresql", "pgbouncer") and random.random() < 0.4,
    )


def _new_routine(random: Random, name: str, before: list[str], releases: int) -> Routine:
    kind = random.choice(["atomic", "batched", "external"])
    versions = [1]
    while len(versions) < releases:
        versions.append(versions[-1] + (random.random() < 0.35))
    return Routine(
        name=name,
        kind=kind,
        retry=random.random() > (0.4 if kind == "external" else 0.1),
        scope=random.choice(["database", "database", "release", "content"]),
        after=tuple(sorted(random.sample(before, min(len(before), random.choice([0, 0, 1, 2]))))),
        versions=tuple(versions),
        items=random.randint(1, 12),
        batch_size=random.randint(1, 5),
        is_queryset=random.random() < 0.5,
        seconds=random.choice([0.1, 0.3, 0.6] if kind == "batched" else [0.1, 0.5, 1.0, 2.0]),
        fails=random.random() < 0.15,
    )
