"""The values that the options of a routine may have."""

import inspect
from collections.abc import Callable
from typing import Any

from once import conf
from once.routines import names
from once.routines.content import Content
from once.routines.state import State

#: The largest number that databases hold, and more than any memory holds of a batch.
_INTEGER_MAX = 2**31 - 1
_SCOPES = ("database", "release", "process")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _INTEGER_MAX


def _is_old_name(value: Any) -> bool:
    return not names.problem(value) and not value.startswith(names.CALL)


def _is_plain(value: Any) -> bool:
    return callable(value) and not inspect.iscoroutinefunction(value)


#: Options, each with a test of its value, and the end of a sentence about a value that fails.
VALUES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "version",
        lambda value: _is_count(value) and value < names.TOMBSTONE,
        "is not a positive integer. Count versions 1, 2, 3.",
    ),
    (
        "renamed_from",
        lambda value: all(map(_is_old_name, value)) and len({*value}) == len(value),
        "lists what can be no name of a routine, or a name twice. Pass the old name, or a list.",
    ),
    (
        "using",
        lambda value: isinstance(value, str),
        "is no alias. Pass one of DATABASES, a string.",
    ),
    (
        "scope",
        lambda value: isinstance(value, Content | State) or value in _SCOPES,
        f"is unknown. Use {', '.join(map(repr, _SCOPES))}, content(...) or state(...).",
    ),
    *(
        (option, lambda value: isinstance(value, bool), "is neither True nor False.")
        for option in ("atomic", "last_pass", "retry", "startup")
    ),
    ("role", conf.is_role, f"is no role. Pass {conf.ROLE}."),
    ("batch_size", _is_count, f"is not an integer from 1 to {_INTEGER_MAX}."),
    (
        "rest",
        lambda value: conf.is_seconds(value, 0),
        f"is not a number of seconds from 0 to {conf.DAY:g}.",
    ),
    *(
        (
            option,
            lambda value: value is None or conf.is_seconds(value, 0.001),
            f"is not a number of seconds from 0.001 to {conf.DAY:g}.",
        )
        for option in ("batch_seconds", "statement_timeout")
    ),
    (
        "throttle",
        lambda value: all(map(_is_plain, value)),
        "is no function, nor a list of functions, that take the run and return seconds to wait.",
    ),
    (
        "max_errors",
        lambda value: value == 0 or _is_count(value),
        f"is not an integer from 0 to {_INTEGER_MAX}.",
    ),
)
