"""A routine: a frozen value that names the function, the scope, and the way to commit."""

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

from asgiref.sync import async_to_sync
from django.apps import apps as installed
from django.apps.registry import Apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

from once.exceptions import RoutineError
from once.routines import names, scopes
from once.routines.contexts import call_apart, outside_event_loop
from once.routines.scopes import Scope
from once.routines.values import VALUES

Kind = Literal["atomic", "batched", "external", "process"]

BATCH_SIZE = 1000
#: Options that mean nothing in process scope, and options that mean nothing without ``over``.
_OF_DATABASES = ("version", "using", "atomic", "over", "retry", "role", "done_if", "renamed_from")
_OF_BATCHES = (
    "batch_size",
    "batch_seconds",
    "rest",
    "throttle",
    "max_errors",
    "statement_timeout",
    "last_pass",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The attempt that a body is part of, for a body that takes ``run``."""

    #: Alias of the database that holds the record and should receive the effects.
    using: str
    #: Number of this attempt, larger than that of any earlier one: a fencing token.
    attempt: int
    #: Idempotency key, 32 hexadecimal digits: the same for every attempt at one completion.
    key: str
    #: Raises :exc:`once.exceptions.LockLost` if another process may have taken over, and
    #: :exc:`KeyboardInterrupt` if this process was told to end.
    check: Callable[[], None]


Throttle = Callable[[Run], float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routine:
    """A function whose effects must exist once. Calling it calls the function and nothing else."""

    function: Callable[..., Any]
    #: Identity in the record: unique, and to be kept when the function moves or is renamed.
    name: str
    #: Names that it had in earlier releases.
    renamed_from: tuple[str, ...] = ()
    #: A higher version runs again, once.
    version: int = 1
    #: Routines, or their names, that must be done before.
    after: tuple["Routine | str", ...] = ()
    #: Alias of the database that holds the effects and the record of them.
    using: str = DEFAULT_DB_ALIAS
    #: The scope in which its effects exist once.
    scope: Scope = "database"
    #: True if effects and record share a transaction; otherwise the effects are outside.
    atomic: bool = True
    #: Returns the items of all batches: a queryset, or an iterable that has an order.
    over: Callable[..., Iterable[Any]] | None = None
    #: Items in a batch, at most.
    batch_size: int = BATCH_SIZE
    #: Seconds that a batch should take, by which its size is chosen.
    batch_seconds: float | None = None
    #: Seconds to rest between batches.
    rest: float = 0.0
    #: Functions that take the run and return the seconds to wait before the next batch.
    throttle: "tuple[Throttle, ...]" = ()
    #: Items that may fail: batches go on behind them.
    max_errors: int = 0
    #: Seconds that a statement of a batch may take.
    statement_timeout: float | None = None
    #: True if a queryset that leaves out done rows is gone through once more at the end.
    last_pass: bool = False
    #: True if another attempt may follow by itself after one that failed or died.
    retry: bool = True
    #: True if starting servers run it and readiness waits for it; otherwise the command runs it.
    startup: bool = True
    #: The role of the processes that run it; empty for any process.
    role: str = ""
    #: Returns ``True`` if the effects exist already, so that the body need not be called.
    done_if: Callable[..., bool] | None = None
    #: The models for functions that take ``apps``; those of this code by default.
    apps: Apps = field(default=installed, init=False, repr=False)
    takes_run: bool = field(init=False)

    def __post_init__(self) -> None:
        if problem := names.problem(self.name):
            raise self._error(f"its name {problem}")
        self._check_after()
        object.__setattr__(self, "renamed_from", names.listed(self.renamed_from))
        throttles: Any = (self.throttle,) if callable(self.throttle) else self.throttle
        if not isinstance(throttles, Iterable):
            raise self._error(f"throttle={throttles!r} is no function, nor a list of functions.")
        object.__setattr__(self, "throttle", tuple(throttles))
        for option, is_valid, problem in VALUES:
            value = getattr(self, option)
            if not is_valid(value):
                raise self._error(f"{option}={value!r} {problem}")
        self._check_combinations()
        self._check_asked()
        object.__setattr__(self, "takes_run", self._reads_run())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __str__(self) -> str:
        return self.name

    @property
    def kind(self) -> Kind:
        """The way to commit: ``atomic``, ``batched``, ``external`` or ``process``."""
        if self.scope == "process":
            return "process"
        if self.over is not None:
            return "batched"
        return "atomic" if self.atomic else "external"

    @property
    def scope_key(self) -> str:
        """The name of this routine's scope in the record.

        Raises:
            ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, a file is missing, or the
                value of a state cannot be had.

        """
        if self.scope == "database":  # as most are, each of which every start asks
            return ""
        return scopes.key(self.scope, self.name, self.function)

    def check_scope(self) -> None:
        """See that what the scope needs is there.

        Raises:
            ImproperlyConfigured: ``ONCE_RELEASE`` is needed and unset, a file is missing, or the
                value of a state cannot be had.

        """
        if self.scope != "database":
            scopes.check(self.scope, self.name, self.function)

    def scope_error(self) -> ImproperlyConfigured | None:
        """Return the error that :meth:`check_scope` raises, if it does."""
        try:
            self.check_scope()
        except ImproperlyConfigured as error:
            return error
        return None

    def call(self, run: Run | None, *batch: Any) -> None:
        """Run the body in this thread to its end, whatever kind of function it is."""
        keywords = {"run": run} if self.takes_run else {}
        body = partial(self.function, *batch, **keywords, **self._models(self.function))
        if inspect.iscoroutinefunction(self.function):
            # Because asgiref sends the coroutine's database work back to this thread, it keeps
            # Django's connection and its transaction.
            with outside_event_loop():
                call_apart(async_to_sync(body))
        else:
            call_apart(body)

    def with_models(self, models: Apps) -> "Routine":
        """Return this routine with other models for those of its functions that take ``apps``."""
        bound = copy(self)
        object.__setattr__(bound, "apps", models)
        return bound

    def items(self) -> Any:
        """Return what ``over`` returns: the items of all batches."""
        return self.over and self.over(**self._models(self.over))

    def is_found(self) -> bool:
        """Return what ``done_if`` says, and raise where that is no bool."""
        if self.done_if is None:
            return False
        answer: object = call_apart(partial(self.done_if, **self._models(self.done_if)))
        if not isinstance(answer, bool):
            raise self._error(
                f"done_if= returned a value of type {type(answer).__name__}, which is neither True "
                "nor False. Have it return a bool, such as that of exists()."
            )
        return answer

    @property
    def takes_apps(self) -> bool:
        """True if the body, ``over`` or ``done_if`` takes ``apps``."""
        functions = (self.function, self.over, self.done_if)
        return any(self._models(each) for each in functions if each is not None)

    def _models(self, function: Callable[..., Any]) -> dict[str, Apps]:
        return {"apps": self.apps} if "apps" in inspect.signature(function).parameters else {}

    def _check_after(self) -> None:
        if isinstance(self.after, str) or not isinstance(self.after, Iterable):
            raise self._error(f"after={str(self.after)!r} must be a list: write after=[...].")
        object.__setattr__(self, "after", tuple(self.after))
        for other in self.after:
            if not isinstance(other, Routine | str):
                raise self._error(
                    f"after={other!r} is no routine. List routines or their names there."
                )

    def _check_combinations(self) -> None:
        if self.scope == "process" and (needless := self._given(_OF_DATABASES)):
            raise self._error(
                f'scope="process" keeps no record and uses no database. Remove {needless}.'
            )
        if self.over is None and (needless := self._given(_OF_BATCHES)):
            raise self._error(
                f"{needless} is for batches, and there is no over=. Pass over=, or remove it."
            )
        # Its value is not shown, because a queryset's would be asked for in the database.
        if self.over is not None and not callable(self.over):
            raise self._error(
                "over= must be a function that returns what to go through, so that importing it "
                "does nothing: write over=lambda: ...."
            )
        if self.over is not None and not self.atomic:
            raise self._error(
                "over= with atomic=False cannot work: a batch and the record of it share a "
                "transaction. Remove one of the two."
            )
        if self.max_errors and not self.retry:
            raise self._error(
                "max_errors= with retry=False cannot work: items of a batch that failed are tried "
                "again, to find out which of them fail. Remove one of the two."
            )

    def _check_asked(self) -> None:
        """Raise where ``done_if`` or ``over`` cannot be called."""
        is_plain = callable(self.done_if) and not inspect.iscoroutinefunction(self.done_if)
        if self.done_if is not None and not is_plain:
            raise self._error("done_if= must be a plain function, no `async def`, and no value.")
        for option, function in (("done_if", self.done_if), ("over", self.over)):
            if function is None:
                continue
            try:
                inspect.signature(function).bind(**self._models(function))
            except TypeError as error:
                raise self._error(
                    f"{option}= cannot be called: {error}. It takes nothing, or `apps` by name."
                ) from None

    def _given(self, options: Iterable[str]) -> str:
        """Return those of the options that differ from their defaults, for an error."""
        defaults = {option.name: option.default for option in fields(self)}
        return " and ".join(f"{name}=" for name in options if getattr(self, name) != defaults[name])

    def _reads_run(self) -> bool:
        """Return True if the body takes ``run``, and raise where it cannot be called."""
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise self._error("it is a generator: calling it would run nothing. Remove the yield.")
        signature = inspect.signature(self.function)
        takes_run = "run" in signature.parameters
        batch = () if self.over is None else ("batch",)
        keywords = {"run": None} if takes_run else {}
        try:
            signature.bind(*batch, **keywords, **self._models(self.function))
        except TypeError as error:
            if batch:
                raise self._error(
                    "with over= a body takes the batch, by position, and may take `run` and "
                    f"`apps`, by name: write def body(batch) or def body(batch, run) ({error})."
                ) from None
            raise self._error(
                f"it cannot be called: {error}. A body takes nothing, or `run` and `apps` by "
                "name; with over= it takes the batch as well."
            ) from None
        if takes_run and self.scope == "process":
            raise self._error('with scope="process" there is no `run`. Remove the parameter.')
        return takes_run

    def _error(self, problem: str) -> RoutineError:
        code = getattr(self.function, "__code__", None)
        where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return RoutineError(f"Routine {self.name!r}{where}: {problem}")
