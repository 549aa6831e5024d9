"""Databases and connections whose charset lacks characters of what attempts have to record."""

import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.project import Project, with_database

WISH = "déjà 漢🎉"
ESCAPED = WISH.encode("ascii", "backslashreplace").decode()
IN_LATIN1 = "ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"

CASES = pytest.mark.parametrize(
    ("kind", "charset", "options", "kept"),
    [
        ("postgresql", IN_LATIN1, "", ESCAPED),
        ("postgresql", IN_LATIN1.replace("LATIN1", "SQL_ASCII"), "", WISH),
        ("mariadb", "CHARACTER SET latin1", "", ESCAPED),
        ("mariadb", "CHARACTER SET utf8mb3", "", ESCAPED),
        ("mariadb", "", "options['charset'] = 'latin1'", ESCAPED),
    ],
    ids=["latin1", "ascii", "mysql-latin1", "mysql-utf8mb3", "mysql-client"],
)


@pytest.fixture
def is_migrated() -> bool:
    """The database is made by the test."""
    return False


@pytest.fixture
def told(project: Project, charset: str, options: str) -> Iterator[Project]:
    """A project whose database has that charset, or whose connections do."""
    usual, name = project.admin_url, urlsplit(project.admin_url).path.strip("/")
    other = f"{name}_told"
    project.execute(f"CREATE DATABASE {other} {charset}")
    project.url = project.admin_url = with_database(usual, other)
    project.environment["DATABASE_URL"] = project.url
    project.environment["ONCE_RELEASE"] = WISH
    project.settings(options)
    yield project
    project.close()
    project.admin_url = usual
    project.execute(f"DROP DATABASE {other}")


@CASES
def test_what_a_charset_lacks_is_recorded_escaped(told: Project, kept: str) -> None:
    told.routines(
        f"""
        @routine
        def bad():
            raise LookupError({WISH!r})
        """
    )
    failed = told.once("run", "--migrate")
    assert failed.finish() == 1, failed.output
    assert f"LookupError: {WISH}. Nothing of its transaction was committed." in failed.output
    faked = told.once("run", "--fake", "plant.bad", "--reason", WISH)
    assert faked.finish() == 0, faked.output
    sql = "SELECT state, error, reason, once_attempt.release FROM once_attempt ORDER BY id"
    first, second = (
        # Of a database without a charset, psycopg has no text.
        [each.decode() if isinstance(each, bytes) else each for each in row]
        for row in told.rows(sql)
    )
    assert first[0] == "failed"
    assert first[1].startswith(f"LookupError: {kept}\nTraceback (most recent call last):\n")
    assert (second[0], second[2]) == ("succeeded", kept)
    assert {first[3], second[3]} == {kept}


@pytest.mark.parametrize("kind", ["sqlite"])
def test_terminal_that_lacks_characters_shows_them_escaped(project: Project) -> None:
    project.routines(
        f"""
        @routine
        def bad():
            raise LookupError({WISH!r})
        """
    )
    once = [sys.executable, "-m", "tests.manage", "once"]
    run = project.start(*once, "run", "--migrate", PYTHONIOENCODING="ascii")
    assert run.finish() == 1, run.output
    for verbosity in "12":
        status = project.start(*once, "status", "-v", verbosity, PYTHONIOENCODING="ascii")
        assert status.finish() == 0, status.output
        assert f"      LookupError: {ESCAPED}\n" in status.output


@CASES
def test_error_of_a_failed_item_that_a_charset_lacks_is_recorded_escaped(
    told: Project, kept: str
) -> None:
    told.routines(
        f"""
        @routine(over=lambda: [1, 2, 3], batch_size=2, max_errors=1)
        def fill(numbers):
            if 2 in numbers:
                raise LookupError({WISH!r})
        """
    )
    done = told.once("run", "--migrate")
    assert done.finish() == 0, done.output
    [(item, error)] = told.rows("SELECT item, error FROM once_faileditem")
    item, error = (each.decode() if isinstance(each, bytes) else each for each in (item, error))
    assert (item, error.splitlines()[0]) == ("2", f"LookupError: {kept}")
