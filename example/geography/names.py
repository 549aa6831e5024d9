"""How the names of places are compared."""

import unicodedata

from . import conf

__all__ = ["searchable"]


def searchable(name: str) -> str:
    """What the spellings of a name have in common: ``ZÜRICH``, ``Zürich`` and ``Zurich``."""
    folded = name.casefold()
    if conf.RELEASE < 3:  # where accents still mattered
        return folded
    letters = unicodedata.normalize("NFKD", folded)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
