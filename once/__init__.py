"""Run initialization code exactly once, however many processes start together."""

from once.base import Routine, Run
from once.content import content
from once.declare import routine

__all__ = ["Routine", "Run", "content", "routine"]
