"""Run initialization code exactly once, however many processes start together."""

from typing import TYPE_CHECKING

from once.base import Routine
from once.content import content
from once.declare import routine

if TYPE_CHECKING:
    from once.run import Run
else:

    def __getattr__(name: str) -> object:
        """Load ``Run`` where it is asked for: by who runs a body, and by annotations."""
        if name == "Run":
            from once.run import Run

            return Run
        raise AttributeError(f"module 'once' has no attribute {name!r}")


__all__ = ["Routine", "Run", "content", "routine"]
