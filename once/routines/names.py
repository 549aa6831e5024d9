"""The names of routines: what they may be, what is reserved, and what stays under an old one."""

import re
from collections.abc import Iterable
from typing import Any

NAME_LENGTH = 200
#: Beginning of the names of this package's own records.
RESERVED = "once."
#: Beginning of the names of commands that ``once call`` ran.
CALL = "call:"
#: The version of the completion that stays under an old name: above that of any routine.
TOMBSTONE = 2**31 - 1
_NAME = re.compile(r"\w[\w.:/@+-]*")


def problem(name: object) -> str:
    """Return what is wrong with a name, as the end of a sentence and a remedy; or empty."""
    if not isinstance(name, str):
        return "is no string. Pass name=, or leave it out."
    if len(name) > NAME_LENGTH:
        return (
            f"has {len(name)} characters and the record holds {NAME_LENGTH}. Pass a shorter name=."
        )
    if not _NAME.fullmatch(name) or name.startswith(RESERVED):
        return (
            "may hold letters, digits and any of _ . : / @ + - only, must begin with a letter or "
            "digit, and 'once.' is reserved. Pass another name=."
        )
    return ""


def listed(names: Any) -> tuple[Any, ...]:
    """Return one name, or several, as a tuple; what is neither is its only item."""
    is_one = isinstance(names, str) or not isinstance(names, Iterable)
    return (names,) if is_one else tuple(names)
