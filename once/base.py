"""What a routine is: a frozen value that declares a function and once per what it runs."""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    get_args,
    overload,
)

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.exceptions import AppRegistryNotReady
from django.db import DEFAULT_DB_ALIAS

from once.exceptions import RoutineError

__all__ = [
    "NAME_LENGTH",
    "RESERVED",
    "Routine",
    "Run",
    "Scope",
    "declared",
    "in_event_loop",
    "routine",
]

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

Scope = Literal["database", "process"]

NAME_LENGTH = 200
#: What the names of this package's own records begin with.
RESERVED = "once."
_VERSION_MAX = 2**31 - 1
_NAME = re.compile(r"\w[\w.:/@+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a body that takes ``run`` is told about the attempt that it is part of."""

    #: Alias of the database that holds the record and should receive the effects.
    using: str
    #: Number of this attempt, larger than that of any earlier one: a fencing token.
    attempt: int
    #: Idempotency key, 32 hexadecimal digits: the same for every attempt at one completion.
    key: str
    #: Raises :exc:`once.exceptions.GuardLost` where somebody else may have taken over.
    check: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routine:
    """A function whose effects must exist once. Calling it calls the function and nothing else."""

    function: Callable[..., Any]
    #: Identity in the record: unique, and to be kept when the function moves or is renamed.
    name: str
    #: A higher version runs again, once.
    version: int = 1
    #: Routines, or their names, that must be done before.
    after: tuple["Routine | str", ...] = ()
    #: Alias of the database that holds the effects and the record of them.
    using: str = DEFAULT_DB_ALIAS
    #: Once per what.
    scope: Scope = "database"
    #: Whether starting servers run it and readiness waits for it, or only the command runs it.
    startup: bool = True
    takes_run: bool = field(init=False)

    def __post_init__(self) -> None:
        if len(self.name) > NAME_LENGTH:
            raise self._error(
                f"its name has {len(self.name)} characters and the record holds {NAME_LENGTH}. "
                "Pass a shorter name=."
            )
        if not _NAME.fullmatch(self.name) or self.name.startswith(RESERVED):
            raise self._error(
                "its name may hold letters, digits and any of _ . : / @ + - only, must begin with "
                "a letter or digit, and 'once.' is reserved. Pass another name=."
            )
        if type(self.version) is not int or not 0 < self.version <= _VERSION_MAX:
            raise self._error(
                f"version={self.version!r} is not a positive integer. Count versions 1, 2, 3."
            )
        if self.scope not in get_args(Scope):
            scopes = " or ".join(map(repr, get_args(Scope)))
            raise self._error(f"scope={self.scope!r} is unknown. Use {scopes}.")
        for other in self.after:
            if not isinstance(other, Routine | str):
                raise self._error(
                    f"after={other!r} is no routine. List routines or their names there."
                )
        if self.scope == "process" and (self.version, self.using) != (1, DEFAULT_DB_ALIAS):
            raise self._error(
                'scope="process" keeps no record and uses no database. Remove version= and using=.'
            )
        object.__setattr__(self, "takes_run", self._reads_run())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __str__(self) -> str:
        return self.name

    @property
    def scope_key(self) -> str:
        """What the record calls this routine's scope."""
        return ""

    def call(self, run: Run | None) -> None:
        """Run the body in this thread to its end, whatever kind of function it is."""
        body = partial(self.function, run=run) if self.takes_run else self.function
        if not inspect.iscoroutinefunction(self.function):
            body()
        elif self.scope == "process" and in_event_loop():
            # async_to_sync refuses to work beside a running event loop, such as that of a
            # server which is importing its application. No transaction binds it to a thread.
            with ThreadPoolExecutor(max_workers=1) as thread:
                thread.submit(async_to_sync(body)).result()
        else:
            # Keeps Django's connection and its transaction: asgiref sends the database
            # work of the coroutine back to this thread.
            async_to_sync(body)()

    def _reads_run(self) -> bool:
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise self._error("it is a generator: calling it would run nothing. Remove the yield.")
        takes_run = False
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.name == "run" and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            ):
                takes_run = True
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise self._error(
                    f"nobody would pass its parameter {parameter.name!r}. "
                    "A body takes nothing, or `run`."
                )
        if takes_run and self.scope == "process":
            raise self._error('with scope="process" there is no `run`. Remove the parameter.')
        return takes_run

    def _error(self, problem: str) -> RoutineError:
        code = getattr(self.function, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return RoutineError(f"Routine {self.name!r}{where}: {problem}")


#: Every routine, in the order in which it was declared.
declared: list[Routine] = []


if TYPE_CHECKING:

    class _Declared(Routine, Generic[P, R_co]):
        """A routine as type checkers see it: called, it has the signature of its function."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@overload
def routine(function: Callable[P, R_co], /) -> "_Declared[P, R_co]": ...


@overload
def routine(
    *,
    name: str | None = None,
    version: int = 1,
    after: Iterable[Routine | str] = (),
    using: str | None = None,
    scope: Scope = "database",
    startup: bool = True,
) -> "Callable[[Callable[P, R_co]], _Declared[P, R_co]]": ...


def routine(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    after: Iterable[Any] = (),
    using: str | None = None,
    scope: Scope = "database",
    startup: bool = True,
) -> Any:
    """Declare a function whose effects must exist once.

    Args:
        function: the body. It takes nothing, or ``run`` (see :class:`Run`); ``async def`` works.
        name: identity in the record, at most 200 characters; ``app_label.function`` by default.
        version: a higher one runs again, once, from the start.
        after: routines, or their names, that must be done before.
        using: alias of the database that holds effects and record; ``"default"`` by default.
        scope: ``"database"``, once per database, or ``"process"``, once in each process and with
            no database: for signal receivers, caches and clients.
        startup: ``False`` leaves it to ``manage.py once run``: starting servers do not run it and
            readiness does not wait for it.

    Returns:
        The routine. Calling it calls the body and nothing else.

    Raises:
        RoutineError: the declaration cannot work; the message says what to do.

    """
    if isinstance(after, str | Routine):
        raise RoutineError(f"after={str(after)!r} must be a list: write after=[...].")

    def declare(body: Callable[..., Any]) -> Routine:
        if not callable(body) or not hasattr(body, "__name__"):
            raise RoutineError(f"@routine declares functions, not {body!r}.")
        new = Routine(
            function=body,
            name=_default_name(body) if name is None else name,
            version=version,
            after=tuple(after),
            using=DEFAULT_DB_ALIAS if using is None else using,
            scope=scope,
            startup=startup,
        )
        declared.append(new)
        return new

    return declare if function is None else declare(function)


def in_event_loop() -> bool:
    """Whether an event loop is running in the calling thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _default_name(function: Callable[..., Any]) -> str:
    where = f"{function.__module__}.{function.__name__}"
    try:
        app = apps.get_containing_app_config(function.__module__)
    except AppRegistryNotReady as error:
        raise RoutineError(
            f"{where} was imported before Django had loaded its apps. Keep routines in the "
            "routines.py of an app and import that module from ready() or later, not from "
            "models or settings."
        ) from error
    if app is None:
        raise RoutineError(
            f"{where} belongs to no app in INSTALLED_APPS, so its routine has no default name. "
            "Move it to the routines.py of an installed app, or pass name=."
        )
    return f"{app.label}.{function.__name__}"
