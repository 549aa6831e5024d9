"""Stops a process at a step of the protocol, from outside: the product has no hook for it.

``TEST_HOLD="before-work=here"`` has the process hold at the point ``here`` before its work;
``"once.record.recorder:begin=here"`` before it calls that function, and with ``after:`` before the
point, after the function returned.
"""

import functools
import os
import pkgutil
from typing import Any

from tests.shop.handshake import hold

__all__ = ["STEPS", "hold_at"]

#: The steps of an attempt in their order, each with the functions that it comes before, or after.
STEPS: dict[str, tuple[str, ...]] = {
    "after-lock": ("once.engine.claim:Claim._claim_next=",),
    "after-claim": ("once.engine.claim:Claim._carry_out=",),
    "before-work": ("once.engine.attempt:Work.do=",),
    "after-body": ("once.routines.base:Routine.call=after:",),
    "before-commit": (
        "once.record.recorder:advance=after:",
        "once.record.recorder:complete=after:",
    ),
    "after-commit": (
        "once.engine.attempt:Work._atomic=after:",
        "once.engine.batching:_Passage._transact=after:",
        "once.engine.attempt:Work._record_outside=after:",
    ),
    # Not of the lock alone, which a loaded machine may cost its holder before its work.
    "before-release": ("once.engine.executor:_Pass.end=",),
}


def hold_at(places: str) -> None:
    """Have this process hold at some places, separated by commas."""
    for place in filter(None, places.split(",")):
        step, _, point = place.partition("=")
        for path in STEPS.get(step, (f"{step}=",)):
            _hold_at(*(path + point).split("=", 1))


def _hold_at(path: str, point: str) -> None:
    owner_path, _, name = path.replace(":", ".").rpartition(".")
    owner: Any = pkgutil.resolve_name(owner_path)
    original = getattr(owner, name)

    @functools.wraps(original)
    def held(*args: Any, **kwargs: Any) -> Any:
        if not point.startswith("after:"):
            hold(point)
        result = original(*args, **kwargs)
        if point.startswith("after:"):
            hold(point.removeprefix("after:"))
        return result

    setattr(owner, name, held)


hold_at(os.environ.get("TEST_HOLD", ""))
