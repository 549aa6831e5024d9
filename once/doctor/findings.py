"""A finding of the doctor: one value for each thing looked at."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """The level of a finding."""

    #: As it must be, or a fact that is good to know.
    OK = "ok"
    #: The promise is kept, but a person should look.
    WARNING = "warning"
    #: The promise cannot be kept, or nothing can run.
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of looking at one thing."""

    #: The thing, in one word that does not change from release to release.
    id: str
    #: Alias of the database.
    database: str
    level: Level = Level.OK
    #: The finding, in sentences.
    message: str
    #: The next step; empty where nothing is to be done.
    hint: str = ""
