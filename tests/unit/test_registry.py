"""The order of routines, and the combinations of them that are refused."""

import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import modify_settings, override_settings

from once import Routine, routine
from once.exceptions import RoutineError, UnknownRoutine
from once.routines import registry
from once.routines.registry import Registry


def declare(name: str, *after: str | Routine, module: str = "library", **options: Any) -> Routine:
    def body() -> None: ...

    body.__module__ = module
    return Routine(function=body, name=name, after=after, **options)


def names(routines: Any) -> list[str]:
    return [one.name for one in routines]


def test_order_is_that_of_definition() -> None:
    assert names(Registry([declare("c"), declare("a"), declare("b")])) == ["c", "a", "b"]


def test_order_of_apps_comes_before_that_of_definition() -> None:
    routines = [
        declare("elsewhere"),
        declare("shop.b", module="tests.shop.routines"),
        declare("auth.c", module="django.contrib.auth.routines"),
        declare("shop.a", module="tests.shop.other"),
    ]
    assert names(Registry(routines)) == ["auth.c", "shop.b", "shop.a", "elsewhere"]


def test_routine_moves_back_behind_a_later_one_and_no_further() -> None:
    routines = [declare("a", "c"), declare("b"), declare("c"), declare("d")]
    assert names(Registry(routines)) == ["b", "c", "a", "d"]


def test_routine_after_an_earlier_one_does_not_move() -> None:
    first = declare("a")
    assert names(Registry([first, declare("b", first), declare("c", "a")])) == ["a", "b", "c"]


def test_after_reaches_into_a_later_app() -> None:
    routines = [
        declare("auth.a", "shop.b", module="django.contrib.auth.routines"),
        declare("shop.b", module="tests.shop.routines"),
        declare("shop.c", module="tests.shop.routines"),
    ]
    assert names(Registry(routines)) == ["shop.b", "auth.a", "shop.c"]


def test_order_does_not_depend_on_names() -> None:
    """Of a graph under many names, each order is the same when the names are taken off."""
    dice = random.Random(1)
    edges = {7: [9, 2], 0: [7, 19], 3: [2], 12: [18], 5: [6, 11], 1: [5]}
    orders = set()
    for _ in range(20):
        label = [f"n{number}" for number in dice.sample(range(10_000), 20)]
        routines = [
            declare(label[one], *(label[other] for other in edges.get(one, [])))
            for one in range(20)
        ]
        orders.add(tuple(label.index(name) for name in names(Registry(routines))))
    assert len(orders) == 1


def test_duplicate_name_is_refused_with_both_places() -> None:
    routines = [declare("x", module="one"), declare("x", module="two")]
    with pytest.raises(RoutineError, match=r"named 'x': one\..*body and two\..*body\. Rename one"):
        Registry(routines)


def test_old_name_that_this_code_declares_is_refused() -> None:
    routines = [declare("a"), declare("b", renamed_from=["c", "a"])]
    with pytest.raises(RoutineError, match=r"'b' is renamed_from 'a', which this code declares: l"):
        Registry(routines)


def test_routines_that_name_each_other_or_themselves_are_refused() -> None:
    for routines in (
        [declare("a", renamed_from="a")],
        [declare("a", renamed_from="b"), declare("b", renamed_from="a")],
    ):
        with pytest.raises(RoutineError, match="which this code declares"):
            Registry(routines)


def test_old_name_of_two_routines_is_refused() -> None:
    routines = [declare("a", renamed_from="old"), declare("b", renamed_from=["old"])]
    with pytest.raises(RoutineError, match="'a' and 'b' are both renamed_from 'old'"):
        Registry(routines)


def test_old_name_means_the_routine() -> None:
    found = Registry([declare("b", "old"), declare("a", renamed_from=["old", "older"])])
    assert names(found) == ["a", "b"]
    assert names(found.select(["older"])) == ["a"]
    assert found.current("old") == found.current("a") == "a"
    with pytest.raises(UnknownRoutine):
        found.select(["oldest"])


def test_unknown_after_is_refused() -> None:
    with pytest.raises(RoutineError, match="'a' comes after 'gone', which does not exist"):
        Registry([declare("a", "gone")])


def test_routine_that_is_not_registered_is_unknown() -> None:
    with pytest.raises(RoutineError, match="'a' comes after 'gone'"):
        Registry([declare("a", declare("gone"))])


def test_cycle_is_refused_and_shown() -> None:
    routines = [declare("a", "c"), declare("b", "a"), declare("c", "b"), declare("d", "a")]
    with pytest.raises(RoutineError) as refusal:
        Registry(routines)
    shown = re.search(r"circle: (.+)\. Remove one after=", str(refusal.value))
    assert shown
    circle = shown[1].split(" -> ")
    assert sorted(circle[1:]) == ["a", "b", "c"]
    comes_after = {"a": "c", "b": "a", "c": "b"}
    assert [comes_after[one] for one in circle[:-1]] == circle[1:]


def test_routine_after_itself_is_refused() -> None:
    with pytest.raises(RoutineError, match="circle: a -> a"):
        Registry([declare("a", "a")])


def test_process_routine_after_a_recorded_one_is_refused() -> None:
    with pytest.raises(RoutineError, match=r"'a' runs in every process.* Remove it from after="):
        Registry([declare("b"), declare("a", "b", scope="process")])


def test_recorded_routine_after_a_process_one_is_accepted() -> None:
    found = Registry([declare("a", "b"), declare("b", scope="process")])
    assert names(found) == ["b", "a"]
    assert names(found.with_predecessors(found.recorded)) == ["a"]


def test_startup_routine_after_one_that_is_not_is_refused() -> None:
    with pytest.raises(RoutineError, match=r"'a' runs at start-up, but .* Give both the same"):
        Registry([declare("b", startup=False), declare("a", "b")])


def test_command_routine_after_a_startup_one_is_accepted() -> None:
    found = Registry([declare("b"), declare("a", "b", startup=False)])
    assert names(found.startup) == ["b"]


def test_kinds_are_told_apart() -> None:
    found = Registry(
        [declare("a", scope="process"), declare("b"), declare("c", startup=False), declare("d")]
    )
    assert names(found.process) == ["a"]
    assert names(found.recorded) == ["b", "c", "d"]
    assert names(found.startup) == ["b", "d"]


def test_select_answers_in_order() -> None:
    found = Registry([declare("a"), declare("b"), declare("c")])
    assert names(found.select(["c", "a"])) == ["a", "c"]


def test_select_refuses_an_unknown_name_and_shows_the_known() -> None:
    found = Registry([declare("a"), declare("b"), declare("in_memory", scope="process")])
    with pytest.raises(UnknownRoutine, match=r"named 'gone', and .* here: a, b, in_memory\."):
        found.select(["a", "gone"])


def test_select_says_that_what_is_in_memory_runs_by_itself() -> None:
    found = Registry([declare("in_memory", scope="process")])
    with pytest.raises(UnknownRoutine, match="runs in every process by itself"):
        found.select(["in_memory"])


def shop(name: str, **options: Any) -> Routine:
    return declare(name, module="tests.shop.routines", **options)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["shop"], ["shop.load_a", "shop.load_b", "shop.seed", "pinned"]),
        (["shop.load_*"], ["shop.load_a", "shop.load_b"]),
        (["shop.load_?"], ["shop.load_a", "shop.load_b"]),
        (["shop.load_[!a]"], ["shop.load_b"]),
        (["*.seed"], ["shop.seed", "other.seed"]),
        (["*"], ["shop.load_a", "shop.load_b", "shop.seed", "pinned", "other.seed"]),
        (["shop.*", "pinned", "shop"], ["shop.load_a", "shop.load_b", "shop.seed", "pinned"]),
    ],
    ids=str,
)
def test_select_takes_labels_and_patterns(wanted: list[str], found: list[str]) -> None:
    routines = [
        *(shop(name) for name in ("shop.load_a", "shop.load_b", "shop.seed", "pinned")),
        shop("shop.in_memory", scope="process"),
        declare("other.seed"),
    ]
    assert names(Registry(routines).select(wanted)) == found


@pytest.mark.parametrize("name", ["Shop", "SHOP.LOAD_*", "shop.load", "load_*", "other", "?", ""])
def test_select_refuses_what_means_nothing(name: str) -> None:
    found = Registry([shop("shop.load_a"), declare("other.seed")])
    with pytest.raises(
        UnknownRoutine, match=re.escape(f"No routine is named {name!r}, and no app")
    ):
        found.select(["shop.load_a", name])


def test_select_names_everything_that_means_nothing() -> None:
    with pytest.raises(UnknownRoutine, match="named 'gone', 'lost_\\*', and no app with routines"):
        Registry([shop("shop.seed")]).select(["gone", "shop", "lost_*"])


@pytest.mark.parametrize("name", ["shop", "shop.*"])
def test_select_of_what_is_in_memory_only_says_so(name: str) -> None:
    found = Registry([shop("shop.in_memory", scope="process"), declare("other.seed")])
    message = re.escape(f"{name} runs in every process by itself (process scope)")
    with pytest.raises(UnknownRoutine, match=message):
        found.select(["other.seed", name])


def test_select_of_nothing_in_an_empty_registry_says_none() -> None:
    with pytest.raises(UnknownRoutine, match="Routines here: none"):
        Registry([]).select(["a"])


def test_with_predecessors_is_closed_and_in_order() -> None:
    found = Registry(
        [declare("a"), declare("b", "a"), declare("c"), declare("d", "b"), declare("e", "d")]
    )
    assert names(found.with_predecessors(found.select(["d"]))) == ["a", "b", "d"]
    assert names(found.with_predecessors([])) == []
    assert names(found.predecessors(found.select(["d"])[0])) == ["b"]


def test_long_chain_in_reverse_needs_no_recursion() -> None:
    count = 3_000
    chain = [declare(f"r{n}", *([f"r{n - 1}"] if n else [])) for n in range(count)]
    found = Registry(reversed(chain))
    assert names(found) == [f"r{n}" for n in range(count)]
    assert len(found.with_predecessors(found.select([f"r{count - 1}"]))) == count


def test_long_cycle_is_refused() -> None:
    chain = [declare(f"r{n}", f"r{(n - 1) % 3_000}") for n in range(3_000)]
    with pytest.raises(RoutineError, match="in a circle"):
        Registry(chain)


def test_load_builds_once_and_again_after_a_declaration(declared: list[Routine]) -> None:
    declared.append(declare("a"))
    before = registry.load()
    assert registry.load() is before
    routine(name="b")(lambda: None)
    assert names(registry.load()) == ["a", "b"]
    assert names(before) == ["a"]
    assert registry.load() is not before


def test_load_does_not_keep_what_it_refused(declared: list[Routine]) -> None:
    declared.append(declare("a", "b"))
    with pytest.raises(RoutineError):
        registry.load()
    declared.append(declare("b"))
    assert names(registry.load()) == ["b", "a"]


def test_load_imports_the_routines_of_each_app(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(registry, "import_module", imported.append)
    monkeypatch.setattr(
        registry, "module_has_submodule", lambda module, name: module.__name__ == "tests.shop"
    )
    monkeypatch.setattr(registry, "_seen", set())
    registry.load()
    registry.load()
    assert imported == ["tests.shop.routines"]
    assert registry.site.declared is declared


@pytest.fixture
def plant(
    tmp_path: Path, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An app that is not installed, with a routine."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_seen", set(registry._seen))
    (tmp_path / "plant").mkdir()
    (tmp_path / "plant" / "__init__.py").touch()
    source = "from once import routine\n\n@routine\ndef water(): ...\n"
    (tmp_path / "plant" / "routines.py").write_text(source)
    yield
    for name in ("plant.routines", "plant"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("plant")
def test_load_has_the_routines_of_an_app_that_a_test_installs_while_it_is_installed(
    declared: list[Routine],
) -> None:
    declared.append(declare("elsewhere"))
    assert names(registry.load()) == ["elsewhere"]
    for _ in range(2):
        with modify_settings(INSTALLED_APPS={"append": "plant"}):
            assert names(registry.load()) == ["plant.water", "elsewhere"]
        assert names(registry.load()) == ["elsewhere"]
    with override_settings(INSTALLED_APPS=["plant", "once"]):
        assert names(registry.load()) == ["plant.water", "elsewhere"]
