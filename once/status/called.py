"""Commands that ``once call`` ran, as routines that no code declares."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from once.models import Attempt, Completion
from once.routines.base import Routine
from once.routines.content import Content
from once.routines.scopes import Scope

#: The digest of files. A release has rarely this form.
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Called(Routine):
    """A command that ``once call`` ran, in the scope that is recorded."""

    function: Callable[..., Any] = lambda: None
    recorded_key: str

    def __post_init__(self) -> None:
        """Check nothing, because a name in the record may be any."""
        object.__setattr__(self, "takes_run", False)

    @property
    def scope_key(self) -> str:
        return self.recorded_key

    def check_scope(self) -> None:
        """Do nothing, because what is recorded needs neither the setting nor the files."""


def called(row: Attempt | Completion, using: str) -> Called:
    """Return what stands for a command, from its last attempt or, without any, its completion."""
    key = row.scope_key
    scope: Scope = "release" if key else "database"
    if _DIGEST.fullmatch(key) and key != getattr(row, "release", None):
        scope = Content(())
    return Called(name=row.routine, version=row.version, using=using, scope=scope, recorded_key=key)
