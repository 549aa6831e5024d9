"""The decorator that declares routines."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from django.apps import apps
from django.core.exceptions import AppRegistryNotReady
from django.db import DEFAULT_DB_ALIAS

from once.exceptions import RoutineError
from once.routines import registry
from once.routines.base import BATCH_SIZE, Routine, Throttle
from once.routines.names import CALL
from once.routines.scopes import Scope

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

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
    renamed_from: str | Iterable[str] = (),
    version: int = 1,
    after: Iterable[Routine | str] = (),
    using: str | None = None,
    scope: Scope = "database",
    atomic: bool = True,
    over: Callable[..., Iterable[Any]] | None = None,
    batch_size: int = BATCH_SIZE,
    batch_seconds: float | None = None,
    rest: float = 0.0,
    throttle: Throttle | Iterable[Throttle] = (),
    max_errors: int = 0,
    statement_timeout: float | None = None,
    last_pass: bool = False,
    retry: bool = True,
    startup: bool = True,
    role: str = "",
    done_if: Callable[..., bool] | None = None,
) -> "Callable[[Callable[P, R_co]], _Declared[P, R_co]]": ...


def routine(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:  # noqa: D417
    """Declare a function whose effects must exist once.

    Args:
        function: the body. It takes nothing, or ``run`` (see :class:`once.Run`), or ``apps``, the
            models of the migration that needs it; with ``over`` it takes the batch as well, by
            position. ``async def`` works.
        name: identity in the record, at most 200 characters; ``app_label.function`` by default.
        renamed_from: the name, or names, that it had in earlier releases. Their record is carried
            over, and an older release does not run it again.
        version: a higher version runs again, once, from the start; 1 by default.
        after: routines, or their names, that must be done before.
        using: alias of the database that holds effects and record; ``"default"`` by default.
        scope: ``"database"``, the default: once per database. ``"release"``: once per database
            and ``ONCE_RELEASE``. ``content("data/*.csv")``: once per database and state of these
            files. ``state(value)``: again with each change of the value. ``"process"``: once in
            each process, without a database.
        atomic: ``False`` calls the body outside of any transaction, for effects outside of the
            database: at least once, with ``run.key`` to recognise repetitions.
        over: returns the items of all batches, and may take ``apps``; each batch has a
            transaction of its own. A
            queryset is read in the order of its primary key, or of the unique field that orders
            it. Another iterable must return the same items on every call.
        batch_size: largest number of items in a batch; 1,000 by default.
        batch_seconds: seconds that a batch should take: batches begin with a tenth of
            ``batch_size``, and their size follows the time that they take.
        rest: seconds to rest between batches; none by default.
        throttle: a function, or several, that takes the run and returns the seconds to wait before
            the next batch; see :mod:`once.throttles`. The functions are asked again after that
            time, or after a second.
        max_errors: items of which the body may raise: each is recorded and left behind, and the
            other items are done. None by default.
        statement_timeout: seconds that a statement in a batch may take, on PostgreSQL; no limit
            of its own by default.
        last_pass: ``True`` goes through the queryset once more at its end, for rows that appeared
            behind the cursor. Only for querysets that leave out finished rows.
        retry: ``False``: after an attempt that failed or died, there is no new attempt until a
            person decides.
        startup: ``False`` leaves it to ``manage.py once run`` and ``manage.py once work``: starting
            servers do not run it and readiness does not wait for it.
        role: the role of the processes that run it, such as ``"worker"``: see ``ONCE_ROLE``. Any
            process by default.
        done_if: returns ``True`` if the effects exist already, and may take ``apps``. It is asked
            before the body is called for the first time. Then the body is not called, and the
            routine is recorded as found done.

    Returns:
        The routine. A call of it only calls the body.

    Raises:
        RoutineError: the declaration cannot work; the message says the next step.

    """

    def declare(body: Callable[..., Any]) -> Routine:
        if not callable(body) or not hasattr(body, "__name__") or isinstance(body, type):
            raise RoutineError(f"@routine declares functions, not {body!r}.")
        if unknown := options.keys() - {field.name for field in fields(Routine)}:
            raise RoutineError(_no_option(body, min(unknown)))
        name, using = options.get("name"), options.get("using")
        if str(name).startswith(CALL):
            raise RoutineError(f"name={name!r}: {CALL!r} is reserved for `once call`.")
        given = {
            **options,
            "name": _default_name(body) if name is None else name,
            "using": DEFAULT_DB_ALIAS if using is None else using,
        }
        new = Routine(function=body, **given)
        registry.site.declared.append(new)
        return new

    return declare if function is None else declare(function)


def _no_option(function: Callable[..., Any], name: str) -> str:
    from difflib import get_close_matches  # for nothing in most processes

    close = get_close_matches(name, [field.name for field in fields(Routine)], 1)
    then = f"Did you mean {close[0]}=?" if close else "See its docstring for what it has."
    where = f"{function.__module__}.{function.__name__}"
    return f"@routine has no option {name}= ({where}). {then}"


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
