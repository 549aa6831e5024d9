"""The database of a run: a server of its own, with a fresh database for each round."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.plan import Plan
from tests.faults.support import LOCK, LOCKS, WORK, Server
from tests.project import Project, with_database
from tests.servers import MariaDB, PgBouncer

__all__ = ["Site", "new_site", "write_releases"]

_TABLE = """
    CREATE TABLE chaos_effect (
        routine varchar(200), version integer, label varchar(200), item integer, attempt integer)
"""


class Site(ABC):
    """Where a run takes place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def project(self, name: str, liveness: float) -> Iterator[Project]:
        """A project on a fresh database, migrated and with what bodies need."""
        directory = self.directory / name
        directory.mkdir()
        url, admin_url = self._create(name)
        project = Project(directory / "project", url, admin_url)
        project.environment.update(
            PYTHONDEVMODE="",
            ONCE_LIVENESS_TIMEOUT=f"{liveness:g}",
            ONCE_RETRY_DELAY="0.5",
            ONCE_STARTUP_COMMANDS="shell",
            CHAOS_STARTS=str(directory / "starts"),
        )
        try:
            migrate = project.manage("migrate", "-v0", DATABASE_URL=admin_url)
            if migrate.finish() != 0:
                raise RuntimeError(migrate.output)
            project.execute(_TABLE)
            numbers = ", ".join(f"({n}, 0)" for n in range(1, 13))
            project.execute(f"INSERT INTO shop_counted (id, counter) VALUES {numbers}")
            yield project
        finally:
            project.close()
            self._drop(name)

    def crash(self) -> None:
        """Have the server lose all of its sessions at once, and come back."""
        raise NotImplementedError

    def lose(self, project: Project) -> None:
        """From now on, have crashes of the server lose what it was not asked to keep."""
        raise NotImplementedError

    def restart_pooler(self) -> None:
        """The same as a crash, of the pooler."""
        raise NotImplementedError

    def sessions(self, project: Project, what: str) -> list[int]:
        """The sessions that hold a lock, or work."""
        return []

    def end_session(self, project: Project, session: int) -> None:
        """End one of them."""
        raise NotImplementedError

    def left(self, project: Project) -> list[tuple[object, ...]]:
        """Sessions and locks that processes left behind which ended."""
        return []

    def close(self) -> None:
        """End the server."""

    @abstractmethod
    def _create(self, name: str) -> tuple[str, str]:
        """Create a database; where processes connect to, and where an observer does."""

    @abstractmethod
    def _drop(self, name: str) -> None:
        """Drop it."""


class _PostgreSQL(Site):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = Server()
        self._is_lossy = False

    def crash(self) -> None:
        self._server.crash()
        if self._is_lossy:
            self._server.keep_commits_in_memory()

    def lose(self, project: Project) -> None:
        [(name,)] = project.rows("SELECT current_database()")
        self._server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        self._server.keep_commits_in_memory()
        self._is_lossy = True

    def sessions(self, project: Project, what: str) -> list[int]:
        where = LOCK if what == "end lock" else WORK
        return [
            pid
            for (pid,) in project.rows(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND "
                f"pid <> pg_backend_pid() AND backend_type = 'client backend' AND {where} "
                "ORDER BY pid"
            )
        ]

    def end_session(self, project: Project, session: int) -> None:
        project.execute(f"SELECT pg_terminate_backend({session})")

    def left(self, project: Project) -> list[tuple[object, ...]]:
        return project.rows(
            "SELECT pid, application_name, state, query FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend' "
            f"AND pid <> pg_backend_pid() {self._idle}"
            "UNION ALL SELECT l.pid, 'advisory lock', '', '' FROM pg_locks AS l "
            "JOIN pg_database AS d ON d.oid = l.database "
            "WHERE l.locktype = 'advisory' AND d.datname = current_database()"
        )

    #: Which sessions may stay.
    _idle = ""

    def close(self) -> None:
        self._server.end()

    def _create(self, name: str) -> tuple[str, str]:
        self._server.execute(f"CREATE DATABASE {name}")
        url = with_database(self._server.url, name)
        return url, url

    def _drop(self, name: str) -> None:
        if self._is_lossy:
            self._server.restore()
            self._is_lossy = False
        self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")


class _Pooled(_PostgreSQL):
    #: A pooler keeps its sessions.
    _idle = "AND state <> 'idle' "

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._pooler = PgBouncer(directory / "pgbouncer", self._server.url, 6)

    def restart_pooler(self) -> None:
        self._pooler.stop()
        self._pooler.start()

    def close(self) -> None:
        self._pooler.stop()
        super().close()

    def _create(self, name: str) -> tuple[str, str]:
        _, admin_url = super()._create(name)
        return self._pooler.url(name), admin_url


class _MariaDB(Site):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = MariaDB(directory / "mariadb")

    def crash(self) -> None:
        self._server.kill()
        self._server.start()

    def sessions(self, project: Project, what: str) -> list[int]:
        work = "ID IN (SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX)"
        return [
            session
            for (session,) in project.rows(
                "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND "
                f"ID <> CONNECTION_ID() AND {LOCKS if what == 'end lock' else work} ORDER BY ID"
            )
        ]

    def end_session(self, project: Project, session: int) -> None:
        project.execute(f"KILL CONNECTION {session}")

    def left(self, project: Project) -> list[tuple[object, ...]]:
        return project.rows(
            "SELECT ID, COMMAND, INFO FROM information_schema.PROCESSLIST "
            "WHERE DB = DATABASE() AND ID <> CONNECTION_ID() "
            "UNION ALL SELECT THREAD_ID, TABLE_SCHEMA, '' "
            "FROM information_schema.METADATA_LOCK_INFO WHERE TABLE_SCHEMA LIKE 'once:%'"
        )

    def close(self) -> None:
        self._server.stop()

    def _create(self, name: str) -> tuple[str, str]:
        self._server.query(f"CREATE DATABASE {name}")
        return (self._server.url(name),) * 2

    def _drop(self, name: str) -> None:
        self._server.query(f"DROP DATABASE {name}")


class _SQLite(Site):
    def _create(self, name: str) -> tuple[str, str]:
        return (f"sqlite:///{self.directory}/{name}/db.sqlite3",) * 2

    def _drop(self, name: str) -> None:
        (self.directory / name / "db.sqlite3").unlink(missing_ok=True)

    def left(self, project: Project) -> list[tuple[object, ...]]:
        import fcntl

        with Path(f"{urlsplit(project.url).path}.once.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return [("the lock file is locked",)]
        return []


def new_site(database: str, directory: Path) -> Site:
    """A server of that kind; nothing of it is left once it is closed."""
    kinds: dict[str, type[Site]] = {
        "postgresql": _PostgreSQL,
        "pgbouncer": _Pooled,
        "mariadb": _MariaDB,
        "sqlite": _SQLite,
    }
    return kinds[database](directory)


def write_releases(project: Project, plan: Plan) -> list[Path]:
    """The code of each release: a directory with a ``plant`` of its own."""
    releases = []
    for number, text in enumerate(plan.contents):
        plant = project.directory / f"release-{number}" / "plant"
        plant.mkdir(parents=True)
        (plant / "__init__.py").touch()
        (plant / "seed.txt").write_text(text)
        shutil.copy(Path(__file__).with_name("bodies.py"), plant / "routines.py")
        routines = [
            {
                "name": one.name,
                "kind": one.kind,
                "retry": one.retry,
                "scope": one.scope,
                "after": one.after,
                "items": one.items,
                "batch_size": one.batch_size,
                "is_queryset": one.is_queryset,
                "seconds": one.seconds,
                "fails": one.fails,
                "version": one.versions[number],
                "label": plan.label(one, number),
            }
            for one in plan.routines
        ]
        text = json.dumps({"number": number, "routines": routines})
        (plant / "release.json").write_text(text)
        releases.append(plant.parent)
    return releases
