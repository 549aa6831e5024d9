"""Scope ``content``: once for each state of some files."""

import glob
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from once.exceptions import RoutineError

__all__ = ["Content", "content", "digest", "matches"]


class Content(NamedTuple):
    """Files, the digest of which is what a routine runs once for."""

    #: Shell patterns, ``**`` included; relative ones to the directory of the routine's module.
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"content({', '.join(map(repr, self.patterns))})"


def content(*patterns: str | os.PathLike[str]) -> Content:
    """The scope of a routine that runs again, once, when the content of files changes.

    Files that are what they once were do not run it again. The digest covers the files' names and
    bytes; a process reads them once.

    Args:
        patterns: shell patterns such as ``"data/*.csv"``, ``**`` included; relative ones to the
            directory of the module that declares the routine.

    Raises:
        RoutineError: there is no pattern, or one that is no text.

    """
    if not patterns:
        raise RoutineError('content() names no files. Write content("data/*.csv").')
    for pattern in patterns:
        if not isinstance(pattern, str | os.PathLike):
            raise RoutineError(
                f'content() takes text, not {pattern!r}. Write content("data/*.csv").'
            )
    return Content(tuple(os.fspath(pattern) for pattern in patterns))


@cache
def digest(files: Content, directory: Path) -> str:
    """SHA-256 over names and bytes of the files, 64 hexadecimal digits.

    Raises:
        FileNotFoundError: a pattern matches no file.

    """
    whole = hashlib.sha256()
    for name in matches(files, directory):
        data = (directory / name).read_bytes()
        # Lengths keep what belongs to one file from passing for part of the next.
        whole.update(b"%d:%s%d:" % (len(name), os.fsencode(name), len(data)) + data)
    return whole.hexdigest()


def matches(files: Content, directory: Path) -> list[str]:
    """The files, by their path from the directory, which no other checkout changes.

    Raises:
        FileNotFoundError: a pattern matches no file.

    """
    names: set[str] = set()
    for pattern in files.patterns:
        try:
            found = glob.glob(pattern, root_dir=directory, recursive=True)
        except ValueError:  # a NUL, or half a character: no file can be named so
            found = []
        matched = [name for name in found if (directory / name).is_file()]
        if not matched:
            raise FileNotFoundError(f"no file matches {pattern!r} in {directory}")
        names.update(os.path.relpath(directory / name, directory) for name in matched)
    return sorted(names)
