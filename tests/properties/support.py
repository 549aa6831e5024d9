"""What properties share."""

from collections.abc import Callable
from typing import Any

__all__ = ["ask"]


def ask(call: Callable[[], Any], refusal: type[Exception]) -> tuple[Any, str]:
    """What a call answers, and the words with which it is refused where it is."""
    try:
        return call(), ""
    except refusal as error:
        return None, str(error)
