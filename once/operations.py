"""Operations for the migrations of projects."""

from typing import Any

from once.exceptions import RoutineError
from once.migrating import gatekeeper
from once.record import gates

__all__ = ["RunRoutine"]


class RunRoutine(gates.Gate):
    """Have a routine completed before the operations that follow, by whatever ``migrate`` comes by.

    It begins its migration: only further ones may stand before it. The routine is completed before
    the migration's transaction begins, once all that the migration depends on is applied: under its
    own lock, in its batches, and only once however many processes migrate. With ``last_pass=True``,
    rows that old code has written since are done, too: the last of them by this operation, with the
    table locked. Undoing the migration makes the routine pending again.

    Args:
        name: of the routine, such as ``"shop.fill_slugs"``.
        elidable: True if a squashed migration leaves it out, as that of ``RunPython`` does.
        allow_failed_items: True if the operations that follow can do with items that failed, behind
            which a routine with ``max_errors`` went on. Otherwise they wait until none is left.

    Raises:
        RoutineError: ``allow_failed_items`` is neither ``True`` nor ``False``.

    """

    reversible = True

    def __init__(
        self, name: str, elidable: bool = False, *, allow_failed_items: bool = False
    ) -> None:
        if not isinstance(allow_failed_items, bool):
            raise RoutineError(
                f"RunRoutine({name!r}): allow_failed_items={allow_failed_items!r} is neither True "
                "nor False."
            )
        self.name = name
        self.elidable = elidable  # type: ignore[misc]
        self.allow_failed_items = allow_failed_items

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        given = {name: True for name in ("elidable", "allow_failed_items") if getattr(self, name)}
        return type(self).__name__, [self.name], given

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing: it concerns rows, not models."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """See that the routine is done, and do what has come since.

        Raises:
            MigrationFailed: the routine is not done, or new rows come faster than it does them.
            NotDone: items of it failed.

        """
        routine = gates.gated(self, schema_editor.connection.alias, app_label)
        if routine is not None:
            from_state.clear_delayed_apps_cache()
            gatekeeper.confirm(self, routine, from_state.apps)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Make the routine pending again, in the transaction that undoes the migration."""
        routine = gates.gated(self, schema_editor.connection.alias, app_label)
        if routine is not None:
            gatekeeper.reverse(routine)

    def describe(self) -> str:
        return f"Complete the routine {self.name}"

    @property
    def migration_name_fragment(self) -> str:
        return f"run_{self.name.rpartition('.')[2]}"
