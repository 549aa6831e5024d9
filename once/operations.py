"""Operations for the migrations of projects."""

from typing import Any

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

    """

    reversible = True

    def __init__(self, name: str, elidable: bool = False) -> None:
        self.name = name
        self.elidable = elidable  # type: ignore[misc]

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return type(self).__name__, [self.name], {"elidable": True} if self.elidable else {}

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing: it concerns rows, not models."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """See that the routine is done, and do what has come since.

        Raises:
            MigrationFailed: the routine is not done, or new rows come faster than it does them.

        """
        routine = gates.gated(self, schema_editor.connection.alias, app_label)
        if routine is not None:
            from_state.clear_delayed_apps_cache()
            gatekeeper.confirm(routine, from_state.apps)

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
