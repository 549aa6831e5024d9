"""The decorator, the value that it makes, and the mistakes that it refuses."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

from once import Routine, Run, content, routine
from once.exceptions import OnceError, RoutineError
from once.routines import decorator
from tests.shop.models import Effect

pytestmark = pytest.mark.usefixtures("declared")


def body() -> None: ...


def in_module(name: str) -> Callable[[], None]:
    def seed() -> None: ...

    seed.__module__ = name
    return seed


def test_decorator_without_parentheses_declares(declared: list[Routine]) -> None:
    made: Any = routine(in_module("tests.shop.routines"))
    assert declared == [made]
    assert isinstance(made, Routine)
    assert (made.name, made.version, made.after, made.using) == ("shop.seed", 1, (), "default")
    assert (made.scope, made.scope_key, made.startup, made.takes_run) == (
        "database",
        "",
        True,
        False,
    )


def test_decorator_with_options_declares(declared: list[Routine]) -> None:
    first: Any = routine(name="first")(body)
    made: Any = routine(
        name="x:seed/1",
        version=3,
        after=[first, "other"],
        using="sqlite",
        startup=False,
        role="worker",
    )(body)
    assert declared == [first, made]
    assert (made.name, made.version, made.after) == ("x:seed/1", 3, (first, "other"))
    assert (made.using, made.scope, made.startup) == ("sqlite", "database", False)
    assert (made.role, first.role) == ("worker", "")


def test_decorator_with_empty_parentheses_declares(declared: list[Routine]) -> None:
    made: Any = routine()(in_module("tests.shop.routines"))
    assert declared == [made]
    assert str(made) == "shop.seed"


def test_after_is_read_once() -> None:
    made: Any = routine(name="x", after=(name for name in ["a", "b"]))(body)
    assert made.after == ("a", "b")


@pytest.mark.parametrize("module", ["tests.shop.routines", "tests.shop", "tests.shop.sub.module"])
def test_default_name_is_label_and_function(module: str) -> None:
    assert routine(in_module(module)).name == "shop.seed"


def test_calling_a_routine_calls_its_body_with_its_arguments() -> None:
    def double(number: int = 0, *, plus: int = 0) -> int:
        return 2 * number + plus

    made = routine(name="x")(double)
    assert made(4, plus=1) == 9
    assert made() == 0


def test_calling_a_routine_twice_calls_its_body_twice() -> None:
    calls: list[int] = []
    made = routine(name="x")(lambda: calls.append(1))
    made()
    made()
    assert calls == [1, 1]


def test_body_that_takes_run_is_given_it() -> None:
    got: list[object] = []

    def positional(run: Run) -> None:
        got.append(run)

    def keyword(*, run: Run) -> None:
        got.append(run)

    def optional(limit: int = 3, run: Run | None = None, *args: int, **kwargs: int) -> None:
        assert (limit, args, kwargs) == (3, (), {})
        got.append(run)

    handle: Any = object()
    for function in (positional, keyword, optional):
        made = Routine(function=function, name="x")
        assert made.takes_run
        made.call(handle)
    assert got == [handle] * 3


def test_body_that_takes_no_run_is_given_nothing() -> None:
    got: list[object] = []
    handle: Any = object()
    made = Routine(function=lambda *args, **kwargs: got.append((args, kwargs)), name="x")
    made.call(handle)
    assert not made.takes_run
    assert got == [((), {})]


def test_async_body_runs_to_its_end() -> None:
    got: list[object] = []

    async def body(run: Run) -> None:
        await asyncio.sleep(0)
        got.append(run)

    handle: Any = object()
    Routine(function=body, name="x").call(handle)
    assert got == [handle]


def test_async_body_raises_what_it_raises() -> None:
    async def body() -> None:
        raise LookupError("from the body")

    with pytest.raises(LookupError, match="from the body"):
        Routine(function=body, name="x").call(None)


def items() -> list[int]:
    return [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "atomic"),
        ({"retry": False, "scope": "release"}, "atomic"),
        ({"atomic": False}, "external"),
        ({"scope": "process"}, "process"),
    ],
    ids=str,
)
def test_kind_is_how_it_commits(options: dict[str, Any], kind: str) -> None:
    assert Routine(function=body, name="x", **options).kind == kind


def test_kind_of_a_routine_with_over_is_batched() -> None:
    assert Routine(function=lambda batch: None, name="x", over=items).kind == "batched"


def test_batched_routine_has_options_of_its_own() -> None:
    made: Any = routine(
        name="x", over=items, batch_size=1, rest=0.5, statement_timeout=0.001, last_pass=True
    )(lambda batch: None)
    assert (made.over, made.batch_size, made.rest) == (items, 1, 0.5)
    assert (made.statement_timeout, made.last_pass) == (0.001, True)


def test_batch_size_is_1000_by_default() -> None:
    assert Routine(function=lambda batch: None, name="x", over=items).batch_size == 1_000


def test_body_with_a_batch_is_given_it_by_position_and_run_by_name() -> None:
    got: list[object] = []
    handle: Any = object()

    def with_run(rows: list[int], run: Run) -> None:
        got.append((rows, run))

    def run_by_keyword(rows: list[int], /, *, run: Run) -> None:
        got.append((rows, run))

    for function in (with_run, run_by_keyword):
        made = Routine(function=function, name="x", over=items)
        assert made.takes_run
        made.call(handle, [1, 2])
    assert got == [([1, 2], handle)] * 2


def only_batch(rows: list[int]) -> None: ...


def optional_batch(rows: list[int] | None = None, limit: int = 3) -> None: ...


def any_number(*rows: list[int]) -> None: ...


async def coroutine_with_batch(rows: list[int]) -> None: ...


@pytest.mark.parametrize("function", [only_batch, optional_batch, any_number, coroutine_with_batch])
def test_body_with_a_batch_and_without_run_is_accepted(function: Any) -> None:
    assert not Routine(function=function, name="x", over=items).takes_run


def test_name_of_a_called_command_is_no_routine_s() -> None:
    with pytest.raises(RoutineError, match=r"'call:' is reserved for `once call`"):
        routine(name="call:prices")(body)


def test_scope_key_is_empty_by_default() -> None:
    assert Routine(function=body, name="x").scope_key == ""


def test_scope_key_of_a_release_is_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "2024.1")
    assert Routine(function=body, name="x", scope="release").scope_key == "2024.1"


def test_scope_key_without_a_release_says_which_routine_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONCE_RELEASE", raising=False)
    with pytest.raises(
        ImproperlyConfigured, match=r"'x' has scope=.*ONCE_RELEASE is unset\. Set it"
    ):
        _ = Routine(function=body, name="x", scope="release").scope_key


def test_scope_key_of_a_missing_file_says_which_routine_and_what_to_do() -> None:
    made = Routine(function=body, name="x", scope=content("gone/*.csv"))
    with pytest.raises(ImproperlyConfigured) as refusal:
        _ = made.scope_key
    message = str(refusal.value)
    assert "Routine 'x' has scope=content('gone/*.csv'), but no file matches" in message
    assert message.endswith("Correct the pattern, or ship the file.")


@pytest.mark.parametrize("name", ["name", "version", "function", "takes_run"])
def test_routine_is_frozen(name: str) -> None:
    made = Routine(function=body, name="x")
    with pytest.raises(FrozenInstanceError):
        setattr(made, name, "other")


def test_routine_has_no_room_for_other_attributes() -> None:
    with pytest.raises((AttributeError, TypeError)):
        Routine(function=body, name="x").other = 1  # type: ignore[attr-defined]


def test_routines_compare_by_identity() -> None:
    first, second = (Routine(function=body, name="x") for _ in range(2))
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize("name", ["a", "0", "shop.seed_prices", "a:b/c@d+e-f.g", "é.ü", "x" * 200])
def test_name_is_accepted(name: str) -> None:
    assert Routine(function=body, name=name).name == name


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), ()),
        ("shop.old", ("shop.old",)),
        (["shop.old", "shop.older"], ("shop.old", "shop.older")),
        ((name for name in ["shop.old"]), ("shop.old",)),
    ],
)
def test_old_names_are_one_or_several(given: Any, names: tuple[str, ...]) -> None:
    assert Routine(function=body, name="x", renamed_from=given).renamed_from == names


@pytest.mark.parametrize("version", [1, 2**31 - 2])
def test_version_is_accepted(version: int) -> None:
    assert Routine(function=body, name="x", version=version).version == version


async def coroutine_generator() -> AsyncIterator[int]:
    yield 1


def generator() -> Iterator[int]:
    yield 1


def positional_only(run: Run, /) -> None: ...


def takes_run(run: Run) -> None: ...


def required(prices: int) -> None: ...


async def asked_in_a_loop() -> bool:
    return True


def required_keyword(*, prices: int) -> None: ...


def only_run(run: Run) -> None: ...


def run_first(run: Run, rows: list[int]) -> None: ...


def two_batches(rows: list[int], prices: list[int]) -> None: ...


def batch_by_keyword(*, rows: list[int]) -> None: ...


BATCHED: dict[str, Any] = {"over": items, "function": only_batch}
COUNT = "an integer from 1 to 2147483647."
SECONDS = "a number of seconds from"
TAKES_THE_BATCH = (
    "with over= a body takes the batch, by position, and may take `run` and `apps`, by name"
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "x" * 201}, "201 characters and the record holds 200. Pass a shorter name="),
        ({"name": b"x"}, "Routine b'x'"),
        ({"name": b""}, "its name is no string. Pass name=, or leave it out."),
        ({"name": 5}, "its name is no string"),
        ({"name": ""}, "letters, digits"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "a\n"}, "letters, digits"),
        ({"name": ".a"}, "must begin with a letter or digit"),
        ({"name": "-a"}, "must begin with a letter or digit"),
        ({"name": "a%s"}, "Pass another name="),
        ({"name": "once.migrate"}, "'once.' is reserved"),
        ({"done_if": True}, "done_if= must be a plain function, no `async def`, and no value."),
        ({"done_if": asked_in_a_loop}, "done_if= must be a plain function"),
        ({"done_if": required}, "done_if= cannot be called: missing a required argument: 'prices'"),
        ({"done_if": takes_run}, "It takes nothing, or `apps` by name."),
        (
            {"done_if": lambda: True, "scope": "process"},
            'scope="process" keeps no record and uses no database. Remove done_if=.',
        ),
        ({"version": 0}, "version=0 is not a positive integer"),
        ({"version": -1}, "version=-1 is not a positive integer"),
        ({"version": True}, "version=True is not a positive integer"),
        ({"version": "1"}, "version='1' is not a positive integer"),
        ({"version": 1.0}, "Count versions 1, 2, 3."),
        ({"version": 2**31 - 1}, "version=2147483647 is not a positive integer"),
        *(
            ({"renamed_from": value}, "lists what can be no name of a routine, or a name twice.")
            for value in ("", None, 5, [b"a"], ["a", ""], ["a", "a"], "once.a", "call:a", [["a"]])
        ),
        (
            {"scope": "cluster"},
            "scope='cluster' is unknown. Use 'database', 'release', 'process', content(...) or "
            "state(...).",
        ),
        ({"after": 3}, "after='3' must be a list"),
        ({"after": None}, "after='None' must be a list"),
        ({"after": [1]}, "after=1 is no routine"),
        ({"after": [body]}, "is no routine. List routines or their names"),
        ({"using": 5}, "using=5 is no alias. Pass one of DATABASES, a string."),
        ({"using": ["default"]}, "using=['default'] is no alias"),
        ({"atomic": "no"}, "atomic='no' is neither True nor False."),
        ({"retry": 0}, "retry=0 is neither True nor False."),
        ({"startup": None}, "startup=None is neither True nor False."),
        ({"last_pass": 1}, "last_pass=1 is neither True nor False."),
        *(
            ({"role": value}, "is no role. Pass a word of at most 50 letters")
            for value in ("two words", "x" * 51, "x\n", None, 1)
        ),
        ({"scope": "process", "role": "worker"}, "uses no database. Remove role=."),
        ({"scope": "process", "version": 2}, "uses no database. Remove version=."),
        ({"scope": "process", "renamed_from": "old"}, "uses no database. Remove renamed_from=."),
        ({"scope": "process", "using": "sqlite"}, "uses no database. Remove using=."),
        ({"scope": "process", "atomic": False}, "uses no database. Remove atomic=."),
        ({"scope": "process", "retry": False}, "uses no database. Remove retry=."),
        ({"scope": "process", **BATCHED}, "uses no database. Remove over=."),
        (
            {"scope": "process", "version": 2, "using": "sqlite", "atomic": False},
            "Remove version= and using= and atomic=.",
        ),
        ({"scope": "process", "function": takes_run}, "there is no `run`. Remove the parameter."),
        ({"batch_size": 10}, "batch_size= is for batches, and there is no over=."),
        ({"rest": 0.1}, "rest= is for batches, and there is no over=."),
        ({"statement_timeout": 3}, "statement_timeout= is for batches, and there is no over=."),
        ({"last_pass": True}, "last_pass= is for batches, and there is no over=."),
        (
            {"batch_size": 10, "rest": 1},
            "batch_size= and rest= is for batches, and there is no over=. Pass over=, or remove",
        ),
        ({**BATCHED, "over": [1, 2]}, "over= must be a function that returns"),
        ({**BATCHED, "over": Effect.objects.all()}, "write over=lambda: ...."),  # without a query
        ({**BATCHED, "over": required}, "over= cannot be called: missing a required argument"),
        ({**BATCHED, "atomic": False}, "over= with atomic=False cannot work"),
        ({**BATCHED, "max_errors": 5, "retry": False}, "max_errors= with retry=False cannot work"),
        ({"max_errors": 5}, "max_errors= is for batches, and there is no over=."),
        ({**BATCHED, "max_errors": -1}, "max_errors=-1 is not an integer from 0 to"),
        *(
            ({**BATCHED, "batch_size": value}, f"batch_size={value} is not {COUNT}")
            for value in (0, -1, True, 2.0, 2**31, 10**30)
        ),
        *(
            ({**BATCHED, "rest": value}, f"rest={value!r} is not {SECONDS} 0 to 86400.")
            for value in (-0.1, "1", True, None, math.inf, math.nan, 86_400.1, 10**30)
        ),
        *(
            (
                {**BATCHED, "statement_timeout": value},
                f"statement_timeout={value!r} is not {SECONDS} 0.001 to 86400.",
            )
            for value in (0, 0.0009, "3", True, math.inf, math.nan, 86_401, 10**30)
        ),
        ({"over": items, "function": body}, TAKES_THE_BATCH),
        ({"over": items, "function": only_run}, TAKES_THE_BATCH),
        ({"over": items, "function": run_first}, TAKES_THE_BATCH),
        ({"over": items, "function": two_batches}, TAKES_THE_BATCH),
        ({"over": items, "function": batch_by_keyword}, TAKES_THE_BATCH),
        ({"function": only_batch}, "with over= it takes the batch as well"),
        ({"function": generator}, "it is a generator: calling it would run nothing"),
        ({"function": coroutine_generator}, "it is a generator"),
        ({"function": required}, "it cannot be called: missing a required"),
        (
            {"function": required_keyword},
            "'prices'. A body takes nothing, or `run` and `apps` by name;",
        ),
        ({"function": positional_only}, "it cannot be called: "),
        ({"over": items, "function": positional_only}, TAKES_THE_BATCH),
    ],
)
def test_mistake_is_refused(options: dict[str, Any], words: str, declared: list[Routine]) -> None:
    function = options.pop("function", body)
    with pytest.raises(RoutineError, match=re.escape(words)) as refusal:
        routine(**{"name": "x", **options})(function)
    assert declared == []
    assert f"{__file__}:" in str(refusal.value)  # where it is declared


def test_option_that_is_unknown_is_named() -> None:
    with pytest.raises(RoutineError, match=r"no option versoin= \(.*Did you mean version=\?"):
        routine(name="x", versoin=2)(body)  # type: ignore[call-overload]


def test_class_is_no_body() -> None:
    with pytest.raises(RoutineError, match="declares functions, not <class"):
        routine(name="x")(type("Seed", (), {}))


def test_mistake_is_an_error_of_the_package_and_of_the_configuration() -> None:
    assert issubclass(RoutineError, OnceError)
    assert issubclass(RoutineError, ImproperlyConfigured)


@pytest.mark.parametrize("after", ["shop.seed", Routine(function=body, name="shop.seed")])
def test_after_that_is_no_list_is_refused(after: Any) -> None:
    with pytest.raises(RoutineError, match=re.escape("'shop.seed' must be a list: write after=[")):
        routine(name="x", after=after)(body)


@pytest.mark.parametrize("declare", [routine, routine(name="x")])
@pytest.mark.parametrize("value", [3, "x", SimpleNamespace(__name__="x")])
def test_what_is_no_function_is_refused(declare: Any, value: object) -> None:
    with pytest.raises(RoutineError, match="declares functions, not"):
        declare(value)


def test_function_of_no_app_needs_a_name() -> None:
    with pytest.raises(RoutineError, match=r"library\.seed belongs to no app .* pass name="):
        routine(in_module("library"))
    assert routine(name="x")(in_module("library")).name == "x"


def test_import_before_the_apps_are_ready_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> None:
        raise AppRegistryNotReady

    monkeypatch.setattr(decorator, "apps", SimpleNamespace(get_containing_app_config=refuse))
    with pytest.raises(RoutineError, match=r"before Django had loaded its apps.*routines\.py"):
        routine(in_module("tests.shop.routines"))
