"""The names of routines: what they may be, and the beginnings that are reserved."""

import re

__all__ = ["CALL", "NAME_LENGTH", "RESERVED", "problem"]

NAME_LENGTH = 200
#: Beginning of the names of this package's own records.
RESERVED = "once."
#: Beginning of the names of commands that ``once call`` ran.
CALL = "call:"
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
