"""Scope ``content``: once for each state of some files."""

import glob
import hashlib
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

from once.exceptions import RoutineError


class Content(NamedTuple):
    """Files whose digest is the scope of a routine."""

    #: Shell patterns, ``**`` included. None where only the digest is known, from the record.
    patterns: tuple[str, ...]
    #: Relative patterns are relative to it: if not given, to that of the routine's module.
    directory: Path | None = None

    def __str__(self) -> str:
        return f"content({', '.join(map(repr, self.patterns)) or '...'})"


def content(*patterns: str | os.PathLike[str]) -> Content:
    """Return the scope of a routine that runs once for each content of files.

    Files that are back in an earlier state do not run it again. The digest covers names and bytes;
    a process reads them once.

    Args:
        patterns: shell patterns such as ``"data/*.csv"``, ``**`` included; relative ones to the
            directory of the module that declares the routine. Files of an absolute pattern are
            named by their path below its last directory without a wildcard.

    Raises:
        RoutineError: there is no pattern, or a pattern is no text.

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
    """Return the SHA-256 over names and bytes of the files, in 64 hexadecimal digits.

    Raises:
        FileNotFoundError: a pattern matches no file.
        ImproperlyConfigured: the size of a file changed while it was read.

    """
    sha256 = hashlib.sha256()
    for name, path in matches(files, directory):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # Because lengths come first, no part of a file passes for part of the next.
            sha256.update(b"%d:%s%d:" % (len(name), os.fsencode(name), size))
            hashlib.file_digest(file, lambda: sha256)  # in pieces
            if (read := file.tell()) != size:
                raise ImproperlyConfigured(
                    f"{path} changed while it was read: of {size} bytes it had {read}. Start again "
                    "once it is written. To exchange it, rename a new file to its name."
                )
    return sha256.hexdigest()


@cache
def matches(files: Content, directory: Path) -> tuple[tuple[str, Path], ...]:
    """Return the files, each with a name that is the same wherever the code lies.

    The name is as a relative pattern finds it. Of an absolute pattern, it is the path below the
    pattern's last directory before any wildcard.

    Raises:
        FileNotFoundError: a pattern matches no file.
        PermissionError: this process may not read a file.

    """
    named: set[tuple[str, Path]] = set()
    for pattern in files.patterns:
        base = _base(pattern) if os.path.isabs(pattern) else directory
        try:
            names = glob.glob(pattern, root_dir=directory, recursive=True)
        except ValueError:  # a NUL, or half a character: no file can be named so
            names = []
        paths = [directory / name for name in names if (directory / name).is_file()]
        if not paths:
            raise FileNotFoundError(f"no file matches {pattern!r} in {directory}")
        for path in paths:
            if not os.access(path, os.R_OK):
                raise PermissionError(f"this process may not read {path}")
        named.update((os.path.relpath(path, base), path.resolve()) for path in paths)
    return tuple(sorted(named))


def _base(pattern: str) -> Path:
    """Return the last directory of an absolute pattern before any wildcard."""
    base = Path(pattern).parent
    while glob.has_magic(str(base)):
        base = base.parent
    return base
