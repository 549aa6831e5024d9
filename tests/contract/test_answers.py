"""A connection from which no answer comes is cut off."""

from __future__ import annotations

import os
import threading

import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections

from once.databases import database, timeouts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]


def ask(seconds: float) -> str:
    """What comes of a question that takes long, on a connection of its own."""
    own = connection.copy()
    try:
        with own.cursor() as cursor, timeouts.expected(own, seconds):
            cursor.execute("SET client_connection_check_interval = 10")  # so that it ends as well
            cursor.execute("SELECT pg_sleep(20)")
    except OperationalError as error:
        return str(error)
    finally:
        own.close()
    return "answered"


def watchers() -> int:
    return sum(thread.name == "once answers" for thread in threading.enumerate())


def test_who_waits_for_less_is_cut_off_before_who_waits_for_more() -> None:
    connection.ensure_connection()
    with timeouts.expected(connection, 60):
        assert "No answer for 0.1 s" in ask(0.1)
        assert "No answer for 0.2 s" in ask(0.2)
        assert watchers() == 1
    timeouts.rest()
    assert watchers() == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")  # it is not cut off itself


def test_no_thread_is_left_behind() -> None:
    connection.close()
    with database(DEFAULT_DB_ALIAS).reading(), connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert watchers() == 1
    assert watchers() == 0


def test_a_forked_process_watches_for_itself() -> None:
    connection.ensure_connection()
    with timeouts.expected(connection, 60):
        reading, writing = os.pipe()
        if not os.fork():
            # Whatever happens, the test must not go on in the child.
            try:
                os.write(writing, ask(0.1).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            assert "No answer for 0.1 s" in answer.read()
        os.wait()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
