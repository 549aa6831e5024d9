"""Surroundings of a body in its thread: the context, and perhaps an event loop."""

import asyncio
import decimal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def call_apart(function: Callable[[], T]) -> T:
    """Call a function in a copy of the context.

    Because the thread goes on to answer requests, what a body activates ends with it: a language, a
    time zone, a urlconf, a precision of decimals.
    """

    def call() -> T:
        with decimal.localcontext():  # which a copy of the context would share
            return function()

    return copy_context().run(call)


@contextmanager
def outside_event_loop() -> Iterator[None]:
    """Hide a running event loop, such as that of uvicorn, inside this context.

    Because Django and asgiref refuse to work beside it, the run takes place while the loop stands
    still, as for every import. Another thread is no way out: signals reach the main thread only.
    """
    loop = asyncio._get_running_loop()
    if loop is None:
        yield
        return
    task = asyncio.current_task()
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
