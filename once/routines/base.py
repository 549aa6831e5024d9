"""What a routine is: a frozen value that says what to call, once per what, and how to commit."""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from once import conf
from once.content import Content, digest, matches
from once.exceptions import RoutineError

if TYPE_CHECKING:
    from once.run import Run

__all__ = [
    "BATCH_SIZE",
    "CALL",
    "NAME_LENGTH",
    "RESERVED",
    "Kind",
    "Routine",
    "Scope",
    "in_event_loop",
]

Scope = Literal["database", "release", "process"] | Content
Kind = Literal["atomic", "batched", "external", "process"]

NAME_LENGTH = 200
#: What the names of this package's own records begin with.
RESERVED = "once."
#: What the names of commands that ``once call`` ran begin with.
CALL = "call:"
BATCH_SIZE = 1000
#: What the databases hold of a version, and more than any memory holds of a batch.
_INTEGER_MAX = 2**31 - 1
_NAME = re.compile(r"\w[\w.:/@+-]*")
_SCOPES = ("database", "release", "process")


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
    #: Whether effects and record share a transaction. If not, the effects are outside.
    atomic: bool = True
    #: Returns what the body is called for, batch by batch: a queryset, or other items in order.
    over: Callable[[], Iterable[Any]] | None = None
    #: Items in a batch, at most.
    batch_size: int = BATCH_SIZE
    #: Seconds to rest between batches.
    pause: float = 0.0
    #: Seconds that a statement of a batch may take.
    statement_timeout: float | None = None
    #: Whether a queryset that leaves out what is done is gone through once more at the end.
    last_pass: bool = False
    #: Whether another attempt may follow by itself after one that failed or died.
    retry: bool = True
    #: Whether starting servers run it and readiness waits for it, or only the command runs it.
    startup: bool = True
    takes_run: bool = field(init=False)

    def __post_init__(self) -> None:
        self._check_identity()
        self._check_after()
        self._check_switches()
        self._check_scope()
        self._check_batches()
        object.__setattr__(self, "takes_run", self._reads_run())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __str__(self) -> str:
        return self.name

    @property
    def kind(self) -> Kind:
        """How it commits."""
        if self.scope == "process":
            return "process"
        if self.over is not None:
            return "batched"
        return "atomic" if self.atomic else "external"

    @property
    def scope_key(self) -> str:
        """What the record calls this routine's scope.

        Raises:
            ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, or a file is missing.

        """
        if self.scope == "database":
            return ""
        self.check_scope()
        if isinstance(self.scope, Content):
            return digest(self.scope, self._directory)
        return conf.release() if self.scope == "release" else ""

    def check_scope(self) -> None:
        """See that what the scope needs is there.

        Raises:
            ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, or a file is missing.

        """
        if self.scope == "database":
            return
        if isinstance(self.scope, Content):
            try:
                matches(self.scope, self._directory)
            except OSError as error:
                raise ImproperlyConfigured(
                    f"Routine {self.name!r} has scope={self.scope}, but {error}. "
                    "Correct the pattern, or ship the file."
                ) from error
        elif self.scope == "release" and not conf.release():
            raise ImproperlyConfigured(
                f'Routine {self.name!r} has scope="release", but ONCE_RELEASE is unset. '
                "Set it to what is deployed, such as a tag or a commit."
            )

    def call(self, run: "Run | None", *batch: Any) -> None:
        """Run the body in this thread to its end, whatever kind of function it is."""
        keywords = {"run": run} if self.takes_run else {}
        body = partial(self.function, *batch, **keywords)
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

    def _check_identity(self) -> None:
        if not isinstance(self.name, str):
            raise self._error("its name is no string. Pass name=, or leave it out.")
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
        if type(self.version) is not int or not 0 < self.version <= _INTEGER_MAX:
            raise self._error(
                f"version={self.version!r} is not a positive integer. Count versions 1, 2, 3."
            )

        if not isinstance(self.using, str):
            raise self._error(f"using={self.using!r} is no alias. Pass one of DATABASES, a string.")

    def _check_after(self) -> None:
        if isinstance(self.after, str) or not isinstance(self.after, Iterable):
            raise self._error(f"after={str(self.after)!r} must be a list: write after=[...].")
        object.__setattr__(self, "after", tuple(self.after))
        for other in self.after:
            if not isinstance(other, Routine | str):
                raise self._error(
                    f"after={other!r} is no routine. List routines or their names there."
                )

    def _check_switches(self) -> None:
        for name in ("atomic", "last_pass", "retry", "startup"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise self._error(f"{name}={value!r} is neither True nor False.")

    def _check_scope(self) -> None:
        if not isinstance(self.scope, Content) and self.scope not in _SCOPES:
            scopes = ", ".join(map(repr, _SCOPES))
            raise self._error(f"scope={self.scope!r} is unknown. Use {scopes} or content(...).")
        if self.scope == "process":
            needless = {
                "version": self.version != 1,
                "using": self.using != DEFAULT_DB_ALIAS,
                "atomic": not self.atomic,
                "over": self.over is not None,
                "retry": not self.retry,
            }
            if any(needless.values()):
                named = " and ".join(f"{name}=" for name, is_given in needless.items() if is_given)
                raise self._error(
                    f'scope="process" keeps no record and uses no database. Remove {named}.'
                )

    def _check_batches(self) -> None:
        if self.over is None:
            needless = {
                "batch_size": self.batch_size != BATCH_SIZE,
                "pause": self.pause != 0,
                "statement_timeout": self.statement_timeout is not None,
                "last_pass": self.last_pass,
            }
            if any(needless.values()):
                named = " and ".join(f"{name}=" for name, is_given in needless.items() if is_given)
                raise self._error(
                    f"{named} is for batches, and there is no over=. Pass over=, or remove it."
                )
            return
        if not callable(self.over):
            raise self._error(
                "over= must be a function that returns what to go through, so that importing it "
                "does nothing: write over=lambda: ...."
            )
        if not self.atomic:
            raise self._error(
                "over= with atomic=False cannot work: a batch and the record of it share a "
                "transaction. Remove one of the two."
            )
        if type(self.batch_size) is not int or not 0 < self.batch_size <= _INTEGER_MAX:
            raise self._error(
                f"batch_size={self.batch_size!r} is not an integer from 1 to {_INTEGER_MAX}."
            )
        self._check_seconds("pause", 0)
        if self.statement_timeout is not None:
            self._check_seconds("statement_timeout", 0.001)

    def _check_seconds(self, name: str, least: float) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= conf.DAY:  # nor is nan
            raise self._error(
                f"{name}={value!r} is not a number of seconds from {least} to {conf.DAY:g}."
            )

    def _reads_run(self) -> bool:
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise self._error("it is a generator: calling it would run nothing. Remove the yield.")
        takes_run = False
        others = []
        for parameter in inspect.signature(self.function).parameters.values():
            is_passed_by_name = parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            if parameter.name == "run" and is_passed_by_name:
                takes_run = True
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                others.append(parameter)
        if self.over is None:
            for parameter in others:
                raise self._error(
                    f"nobody would pass its parameter {parameter.name!r}. "
                    "A body takes nothing, or `run`; with over= it takes the batch as well."
                )
        elif not self._takes_batch(others):
            raise self._error(
                "with over= a body takes the batch, by position, and may take `run`, by name: "
                "write def body(batch) or def body(batch, run)."
            )
        if takes_run and self.scope == "process":
            raise self._error('with scope="process" there is no `run`. Remove the parameter.')
        return takes_run

    def _takes_batch(self, required: list[inspect.Parameter]) -> bool:
        first = next(iter(inspect.signature(self.function).parameters.values()), None)
        if first is None or first.name == "run":
            return False
        return first.kind in (
            first.POSITIONAL_ONLY,
            first.POSITIONAL_OR_KEYWORD,
            first.VAR_POSITIONAL,
        ) and [parameter.name for parameter in required] in ([first.name], [])

    @property
    def _directory(self) -> Path:
        return Path(inspect.unwrap(self.function).__code__.co_filename).parent

    def _error(self, problem: str) -> RoutineError:
        code = getattr(self.function, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return RoutineError(f"Routine {self.name!r}{where}: {problem}")


def in_event_loop() -> bool:
    """Whether an event loop is running in the calling thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
