"""Run initialization code exactly once, however many processes start together."""

from once.routines.base import Routine, Run
from once.routines.content import content
from once.routines.decorator import routine
from once.routines.state import state

__all__ = ["Routine", "Run", "content", "routine", "state"]
