"""Calls behind a frame of a function of some module, as a server would make them."""

from collections.abc import Callable
from typing import Any

__all__ = ["in_frame"]


def in_frame(
    module: str, function: str, owner: object = None
) -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a function behind such a frame, in which ``self`` is the owner."""
    namespace: dict[str, Any] = {"__name__": module, "owner": owner}
    exec(f"def {function}(call, self=owner):\n    return call()", namespace)
    called: Callable[[Callable[[], Any]], Any] = namespace[function]
    return called
