"""The order of routines, of any graph."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from once import Routine
from once.exceptions import RoutineError, UnknownRoutine
from once.routines.registry import Registry, match
from tests.properties.support import ask

#: Modules by the position of their app in INSTALLED_APPS; the last one is of none.
MODULES = ("django.contrib.auth.routines", "tests.shop.routines", "library")
#: Each routine's app, and the indices of those that it comes after.
GRAPHS = st.integers(1, 9).flatmap(
    lambda count: st.lists(
        st.tuples(st.sampled_from(MODULES), st.lists(st.integers(0, count - 1), max_size=3)),
        min_size=count,
        max_size=count,
    )
)
Graph = list[tuple[str, list[int]]]


def declare(graph: Graph) -> list[Routine]:
    routines = []
    for index, (module, after) in enumerate(graph):

        def body() -> None: ...

        body.__module__ = module
        named = tuple(f"r{other}" for other in after)
        routines.append(Routine(function=body, name=f"r{index}", after=named))
    return routines


def indices(routines: Iterable[Routine]) -> list[int]:
    return [int(routine.name[1:]) for routine in routines]


def expected(graph: Graph) -> list[int] | None:
    """At each place the first of those whose predecessors are placed; none in a circle."""
    waiting = sorted(range(len(graph)), key=lambda index: MODULES.index(graph[index][0]))
    order: list[int] = []
    while waiting:
        ready = [index for index in waiting if set(graph[index][1]) <= set(order)]
        if not ready:
            return None
        order.append(ready[0])
        waiting.remove(ready[0])
    return order


@given(GRAPHS)
def test_order_is_that_of_definition_as_far_as_after_lets_it(graph: Graph) -> None:
    order = expected(graph)
    if order is not None:
        assert indices(Registry(declare(graph))) == order
        return
    with pytest.raises(RoutineError) as refusal:
        Registry(declare(graph))
    shown = re.search(r"circle: (.+)\. Remove one after=", str(refusal.value))
    assert shown
    circle = [int(name[1:]) for name in shown[1].split(" -> ")]
    assert circle[0] == circle[-1]
    assert len(set(circle)) == len(circle) - 1 > 0
    assert all(behind in graph[one][1] for one, behind in pairwise(circle))


@given(GRAPHS, st.data())
def test_chosen_routines_bring_all_that_must_be_done_before(graph: Graph, data: Any) -> None:
    graph = [
        (module, [one for one in after if one < me]) for me, (module, after) in enumerate(graph)
    ]
    found = Registry(declare(graph))
    chosen = data.draw(st.sets(st.sampled_from(range(len(graph)))))
    wanted = set(chosen)
    for index in reversed(range(len(graph))):
        wanted.update(graph[index][1] if index in wanted else ())
    names = [f"r{index}" for index in chosen]
    assert indices(found.select(names)) == [one for one in indices(found) if one in chosen]
    brought = found.with_predecessors(found.select(names))
    assert indices(brought) == [one for one in indices(found) if one in wanted]


@given(st.text() | st.text(alphabet="[]!*?-^|&~\\ab.\udcff"))
def test_any_name_means_something_known_or_is_refused(name: str) -> None:
    known = {"a.b": "a", "b": "", "call:a": ""}
    found, refusal = ask(lambda: match([name], known), UnknownRoutine)
    if refusal:
        assert repr(name) in refusal
    else:
        assert set() < found[name] <= set(known)
