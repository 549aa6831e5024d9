"""Stops a process at a step of the protocol, from outside: the product has no hook for it.

``TEST_HOLD="once.ledger:begin=claim"`` has the process hold at the point ``claim`` before it calls
``once.ledger.begin``; with ``after:`` before the point, after it returned.
"""

import functools
import os
import pkgutil
from typing import Any

from tests.shop.handshake import hold

__all__: list[str] = []


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


for _step in filter(None, os.environ.get("TEST_HOLD", "").split(",")):
    _hold_at(*_step.split("=", 1))
