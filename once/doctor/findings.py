"""What an examination of a deployment finds: one value for each thing looked at."""

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Level"]


class Level(enum.StrEnum):
    """How bad it is."""

    #: As it must be, or a fact that is good to know.
    OK = "ok"
    #: The promise is kept, but a person should look.
    WARNING = "warning"
    #: The promise cannot be kept, or nothing can run.
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    #: What, in one word that does not change from release to release.
    id: str
    #: Alias of the database.
    database: str
    level: Level = Level.OK
    #: What was found, in sentences.
    message: str
    #: What to do next; empty where nothing is to be done.
    hint: str = ""
