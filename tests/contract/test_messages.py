"""Statements that travel together: what they answer, and what an error of one does to the rest."""

from collections.abc import Callable, Iterator

import pytest
from django.db import Error, connections, transaction

from once.databases import database
from once.databases.messages import followed, preceded, together
from once.databases.tables import ask, execute
from tests.shop.models import Effect

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

INSERT = "INSERT INTO shop_effect (name, pid) VALUES (%s, 1)"
NAMES = "SELECT name FROM shop_effect ORDER BY name"
RELEASE = "RELEASE SAVEPOINT body"


@pytest.fixture(autouse=True)
def _in_a_transaction(using: str) -> Iterator[None]:
    with transaction.atomic(using=using):
        yield
        transaction.set_rollback(True, using=using)


@pytest.fixture
def insert(using: str) -> Callable[[str], None]:
    return lambda name: execute(connections[using], INSERT, [name])


def names(using: str) -> list[str]:
    return [name for (name,) in ask(connections[using], NAMES)]


def test_each_statement_has_its_answer(using: str) -> None:
    rename = "UPDATE shop_effect SET name = %s WHERE name <> %s"
    answers = together(
        database(using),
        (INSERT, ["a"]),
        (INSERT, ["100 %s"]),
        (rename, ["b", "a"]),
        (NAMES, []),
        (rename, ["c", "c"]),
    )
    assert [answers[:3], [*map(tuple, answers[3])], answers[4]] == [[1, 1, 1], [("a",), ("b",)], 2]


def test_nothing_comes_behind_an_error(using: str) -> None:
    with pytest.raises(Error), transaction.atomic(using=using):
        together(database(using), (INSERT, ["a"]), ("SELECT broken", []), (INSERT, ["b"]))
    assert names(using) == []


def test_statement_goes_before_the_first_of_its_context_alone(
    using: str, insert: Callable[[str], None]
) -> None:
    execute(connections[using], "SAVEPOINT body")
    with preceded(database(using), RELEASE):
        insert("a")
        insert("b")  # a second release would be an error
    assert names(using) == ["a", "b"]


def test_statement_goes_at_the_end_of_a_context_without_another(using: str) -> None:
    with pytest.raises(Error), transaction.atomic(using=using), preceded(database(using), RELEASE):
        pass


def test_nothing_is_done_where_the_statement_before_fails(
    using: str, insert: Callable[[str], None]
) -> None:
    """Else a body that ended its transaction would be recorded."""
    here = database(using)
    with pytest.raises(Error) as caught, transaction.atomic(using=using), preceded(here, RELEASE):
        insert("a")
    assert here.lacks_savepoint(caught.value)
    assert names(using) == []


def test_statements_go_behind_the_one_of_their_context(
    using: str, insert: Callable[[str], None]
) -> None:
    with followed(database(using), "SAVEPOINT body"):
        insert("a")
    insert("b")
    execute(connections[using], "ROLLBACK TO SAVEPOINT body")
    assert names(using) == ["a"]


def test_answer_is_that_of_the_statement_and_not_of_what_goes_with_it(using: str) -> None:
    Effect.objects.using(using).create(name="a")
    here = database(using)
    execute(here.connection, "SAVEPOINT body")
    with preceded(here, RELEASE):
        [found, changed] = together(here, (NAMES, []), ("UPDATE shop_effect SET name = 'b'", []))
    assert ([*map(tuple, found)], changed) == ([("a",)], 1)
    with followed(here, "SAVEPOINT body"):
        assert names(using) == ["b"]
