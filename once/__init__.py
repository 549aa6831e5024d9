"""Run initialization code exactly once, however many processes start together."""

from once.base import Routine, Run, routine

__all__ = ["Routine", "Run", "routine"]
