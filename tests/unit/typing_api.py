"""What type checkers make of the public names: checked by mypy, run by nobody."""

from typing import Any, Literal, assert_type

from once import Routine, Run, routine
from once.routines.content import Content
from once.routines.state import State


@routine
def plain(limit: int = 1) -> str:
    return "x" * limit


@routine(name="x", version=2, after=[plain, "shop.seed"], using="default", startup=False)
def with_options(run: Run) -> None:
    assert_type(run.using, str)
    assert_type(run.attempt, int)
    assert_type(run.key, str)
    run.check()


@routine(scope="process")
async def coroutine() -> int:
    return 1


async def calls() -> None:
    assert_type(plain(), str)
    assert_type(plain(limit=3), str)
    assert_type(await coroutine(), int)
    assert_type(plain.name, str)
    assert_type(plain.version, int)


def mistakes() -> None:
    plain("3")  # type: ignore[arg-type]
    routine(version="1")  # type: ignore[call-overload]
    routine(scope="cluster")  # type: ignore[call-overload]
    routine("shop.seed")  # type: ignore[call-overload]


def declared_ones_are_routines() -> list[Routine]:
    assert_type(plain.scope, Literal["database", "release", "process"] | Content | State)
    return [plain, with_options, coroutine]


def value(made: Routine) -> None:
    assert_type(made(), Any)
    assert_type(made.scope, Literal["database", "release", "process"] | Content | State)
    assert_type(made.after, tuple[Routine | str, ...])
    made.name = "other"  # type: ignore[misc]
