"""``RunRoutine``, as migrations are written and squashed with it."""

from typing import Any

import pytest

from once.exceptions import RoutineError
from once.operations import RunRoutine


@pytest.mark.parametrize(
    "options",
    [{}, {"elidable": True}, {"allow_failed_items": True}],
    ids=["plain", "elidable", "allow_failed_items"],
)
def test_operation_is_written_as_it_was_declared(options: dict[str, Any]) -> None:
    operation = RunRoutine("shop.fill", **options)
    assert operation.deconstruct() == ("RunRoutine", ["shop.fill"], options)
    assert (operation.elidable, operation.allow_failed_items) == (
        options.get("elidable", False),
        options.get("allow_failed_items", False),
    )


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_allow_failed_items_is_true_or_false(value: Any) -> None:
    with pytest.raises(RoutineError, match=r"allow_failed_items=.* is neither True nor False"):
        RunRoutine("shop.fill", allow_failed_items=value)
