"""Daemon threads that do something for their caller, where their caller would do it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def start(function: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread that calls a function in a copy of the caller's context.

    Because a back end may keep the schema that it reads in a context variable (django-pgschemas
    does), a thread with a context of its own would read another schema.
    """
    run = copy_context().run
    thread = threading.Thread(target=run, args=[function], name=name, daemon=True)
    thread.start()
    return thread


def fulfil(answer: "Future[T]", function: Callable[[], T]) -> None:
    """Call a function and set its result, or its error, as the answer."""
    try:
        answer.set_result(function())
    except BaseException as error:
        answer.set_exception(error)
