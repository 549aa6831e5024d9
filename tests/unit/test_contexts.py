"""What a body activates ends with it, for each kind of function."""

import asyncio
import decimal
from collections.abc import Callable
from contextvars import ContextVar

import pytest
from django.db import connection
from django.urls import get_script_prefix, get_urlconf, set_script_prefix, set_urlconf
from django.utils import timezone, translation

from once import Routine

TENANT: ContextVar[str] = ContextVar("tenant", default="public")


def _state() -> dict[str, object]:
    return {
        "language": translation.get_language(),
        "zone": timezone.get_current_timezone_name(),
        "urlconf": get_urlconf(),
        "prefix": get_script_prefix(),
        "precision": decimal.getcontext().prec,
        "rounding": decimal.getcontext().rounding,
        "tenant": TENANT.get(),
    }


def _activate() -> None:
    translation.activate("de")
    timezone.activate("Asia/Kolkata")
    set_urlconf("tests.other_urls")
    set_script_prefix("/other/")
    decimal.getcontext().prec = 5
    decimal.setcontext(decimal.Context(prec=7, rounding=decimal.ROUND_UP))
    TENANT.set("other")


def _body(seen: list[dict[str, object]]) -> Callable[[], None]:
    def body() -> None:
        _activate()
        seen.append(_state())

    return body


def _coroutine(seen: list[dict[str, object]]) -> Callable[[], object]:
    async def body() -> None:
        _activate()
        seen.append(_state())

    return body


def _failing(seen: list[dict[str, object]]) -> Callable[[], None]:
    def body() -> None:
        _activate()
        seen.append(_state())
        raise LookupError

    return body


@pytest.mark.parametrize("scope", ["database", "process"])
@pytest.mark.parametrize("make", [_body, _coroutine, _failing])
def test_what_a_body_activates_ends_with_it(
    make: Callable[[list[dict[str, object]]], Callable[[], object]], scope: str
) -> None:
    seen: list[dict[str, object]] = []
    routine = Routine(function=make(seen), name="shop.seed", scope=scope)  # type: ignore[arg-type]
    before = _state()
    try:
        routine.call(None)
    except LookupError:
        assert make is _failing
    assert _state() == before
    assert [before[name] for name in before if seen[0][name] == before[name]] == []


def test_body_sees_the_callers_context_and_its_connection() -> None:
    seen: list[object] = []
    routine = Routine(
        function=lambda: seen.extend(
            [translation.get_language(), connection.alias, id(connection)]
        ),
        name="shop.seed",
    )
    with translation.override("fr"):
        routine.call(None)
    assert seen == ["fr", "default", id(connection)]


def test_coroutine_in_memory_runs_beside_an_event_loop() -> None:
    ran: list[str] = []

    async def body() -> None:
        await asyncio.sleep(0)
        ran.append("body")

    async def importing() -> None:
        Routine(function=body, name="shop.seed", scope="process").call(None)
        await asyncio.sleep(0)
        ran.append("loop")

    asyncio.run(importing())
    assert ran == ["body", "loop"]
