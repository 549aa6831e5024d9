"""Settings, read when used: an environment variable beats the Django setting of the same name."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeGuard, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

#: The environment variable by which a process that runs tests is known to its children. Its value
#: is the id of that process.
TESTS = "ONCE_TESTS"

#: No time is longer: servers count milliseconds in 32 bits, also of eight times the liveness.
DAY = 86_400.0

#: The role of Celery's processes and of ``once work``, unless ``ONCE_ROLE`` says another.
WORKER = "worker"
#: A role, for messages.
ROLE = "a word of at most 50 letters, digits, dots, hyphens and underscores, or nothing"
_ROLE = re.compile(r"[\w.-]{0,50}", re.ASCII)


def startup() -> str:
    """The mode of starting servers: ``run``, ``background`` or ``off``.

    ``"run"``: run it, then serve. ``"background"``: serve meanwhile. ``"off"``: nothing.
    """
    return _choice("ONCE_STARTUP", ("run", "background", "off"), default="run")


def startup_timeout() -> float:
    """Seconds for which a process tries to reach a database before it goes on without."""
    return _seconds("ONCE_STARTUP_TIMEOUT", default=25.0, minimum=0.0)


def startup_failure() -> str:
    """``"raise"``: a routine that fails stops the starting server. ``"log"``: it does not."""
    return _choice("ONCE_STARTUP_FAILURE", ("raise", "log"), default="raise")


def startup_commands() -> tuple[str, ...]:
    """Names of the management commands that count as servers."""
    value = _raw("ONCE_STARTUP_COMMANDS", list, default=["runserver"])
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise _refusal("ONCE_STARTUP_COMMANDS", "a list of names of management commands", value)
    return tuple(name.strip() for name in value)


def release() -> str:
    """The deployed release: kept with each attempt, and the key of scope ``release``."""
    value = _raw("ONCE_RELEASE", str, default="")
    # A file's last new line is no part of it, nor are spaces that MySQL takes no notice of.
    release = value.strip() if isinstance(value, str) else None
    if release is None or len(release) > 200 or not release.isprintable():
        raise _refusal("ONCE_RELEASE", "a string of at most 200 printable characters", value)
    return release


def role(default: str = "") -> str:
    """The role of this process, by which it takes routines; empty for none.

    Args:
        default: the role where ``ONCE_ROLE`` is not set.

    """
    value = _raw("ONCE_ROLE", str, default=default)
    if not is_role(value):
        raise _refusal("ONCE_ROLE", ROLE, value)
    return str(value)


def liveness_timeout() -> float:
    """Seconds after which the database evicts a lock that stopped proving that it lives."""
    return _seconds("ONCE_LIVENESS_TIMEOUT", default=15.0, minimum=1.0)


def retry_delay() -> float:
    """Seconds that starting servers, all of them, wait after a failure; doubled after the next."""
    return _seconds("ONCE_RETRY_DELAY", default=30.0, minimum=0.0)


def lock_migrate() -> bool:
    """True if ``manage.py migrate`` takes the lock of ``once run --migrate``."""
    value = _raw("ONCE_LOCK_MIGRATE", str, default=False)
    word = str(value).lower()
    if word not in ("true", "false"):
        raise _refusal("ONCE_LOCK_MIGRATE", "true or false", value)
    return word == "true"


def migrate_lock_timeout() -> float:
    """Seconds that a schema statement of a migration under ``--migrate`` waits for its locks.

    After that it lets the application pass, and is tried again. 0: no limit.
    """
    return _seconds("ONCE_MIGRATE_LOCK_TIMEOUT", default=5.0, minimum=0.0)


def scrub() -> Callable[[str], str] | None:
    """The function that removes secrets from the texts of errors, if the project names one."""
    path = _raw("ONCE_SCRUB", str, default="")
    if path == "":
        return None
    try:
        function = import_string(path)
    except Exception:  # of the module, whatever it raises
        function = None
    if not callable(function):
        raise _refusal("ONCE_SCRUB", "the dotted path of a function", path)
    return cast(Callable[[str], str], function)


def is_seconds(value: Any, minimum: float) -> TypeGuard[float]:
    """Return True if a value is a number of seconds, from a minimum to a day; nan is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and minimum <= value <= DAY


def is_role(value: Any) -> bool:
    """Return True if a value is a role, or nothing."""
    return isinstance(value, str) and _ROLE.fullmatch(value) is not None


NAMES: dict[str, Callable[[], object]] = {
    "ONCE_STARTUP": startup,
    "ONCE_STARTUP_TIMEOUT": startup_timeout,
    "ONCE_STARTUP_FAILURE": startup_failure,
    "ONCE_STARTUP_COMMANDS": startup_commands,
    "ONCE_RELEASE": release,
    "ONCE_ROLE": role,
    "ONCE_LIVENESS_TIMEOUT": liveness_timeout,
    "ONCE_RETRY_DELAY": retry_delay,
    "ONCE_SCRUB": scrub,
    "ONCE_LOCK_MIGRATE": lock_migrate,
    "ONCE_MIGRATE_LOCK_TIMEOUT": migrate_lock_timeout,
}


def _raw(name: str, kind: type, *, default: object) -> Any:
    if name not in os.environ:
        return getattr(settings, name, default)
    from environ import Env  # for nothing in most processes, and one of the larger imports

    return Env.parse_value(os.environ[name], kind)


def _choice(name: str, choices: tuple[str, ...], *, default: str) -> str:
    value = _raw(name, str, default=default)
    if value not in choices:
        raise _refusal(name, " or ".join(map(repr, choices)), value)
    return str(value)


def _seconds(name: str, *, default: float, minimum: float) -> float:
    value = _raw(name, str, default=default)
    if isinstance(value, str) and name in os.environ:
        with suppress(ValueError):  # environ's own float takes "2m" for 2 and "1e3" for 13
            value = float(value)
    if not is_seconds(value, minimum):
        raise _refusal(name, f"a number of seconds from {minimum:g} to {DAY:g}", value)
    return float(value)


def _refusal(name: str, needed: str, value: object) -> ImproperlyConfigured:
    source = "environment variable" if name in os.environ else "setting"
    return ImproperlyConfigured(f"The {source} {name} must be {needed}, not {value!r}.")
