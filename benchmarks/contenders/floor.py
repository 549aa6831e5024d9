"""What cannot be left out: one indexed SELECT, and for each routine one bare transaction."""

from django.db import connection, transaction

from benchmarks.contenders import Contender
from benchmarks.project import work

__all__ = ["Floor"]


class Floor(Contender):
    """Raw SQL on Django's own connection, with the completion rows that ``once`` keeps."""

    command = ("floor",)

    def prepare(self, count: int, first: int = 0) -> None:
        self._names = work.names(count, first)

    def run(self) -> None:
        done = self._read()
        for name in self._names:
            if name not in done:
                self._do(name)

    def _read(self) -> set[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT routine, version, scope_key FROM once_completion WHERE routine = ANY(%s)",
                [self._names],
            )
            return {routine for routine, version, scope_key in cursor.fetchall() if version == 1}

    def _do(self, name: str) -> None:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO once_completion (routine, version, scope_key, completed_at) "
                    "VALUES (%s, 1, '', now())",
                    [name],
                )
            work.effect(name)
