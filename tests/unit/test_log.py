"""What the log says, in which form, and that its page lists exactly that."""

import ast
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from io import StringIO
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings

from once import Routine, log, receivers, signals
from once.models import Attempt, State
from once.results import Outcome, Reason, Result
from tests.project import ROOT

PAGE = (ROOT / "docs" / "reference" / "observability.md").read_text()
#: As the page gives it to who reads the lines by a program.
[PATTERN] = re.findall(r'^PAIR = re.compile\(r"""(.*)"""\)$', PAGE, re.MULTILINE)

ROUTINE = Routine(function=lambda: None, name="shop.fill", version=2)


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "once")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def parsed(line: str) -> dict[str, str]:
    """A line, read as the page says."""
    found = re.findall(PATTERN, line)
    assert " ".join(f"{key}={value}" for key, value in found) == line
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


@pytest.mark.parametrize(
    ("seconds", "lap", "speaks"),
    [
        (29.9, 29.9, False),
        (30.1, 0.2, True),
        (45.0, 0.2, False),
        (60.0, 0.1, True),
        (59.9, 0.1, False),
        (200.0, 100.0, True),
    ],
)
def test_progress_is_logged_each_30_s(
    seconds: float, lap: float, speaks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = Attempt(number=3, processed=40, total=100)
    signals.progressed.send(ROUTINE, attempt=attempt, seconds=seconds, lap=lap)
    line = (
        "event=progress routine=shop.fill version=2 database=default attempt=3 processed=40 "
        f"total=100 seconds={seconds:.3f}"
    )
    assert lines(caplog) == ([("INFO", line)] if speaks else [])


def test_start_of_a_decision_says_who_and_why(caplog: pytest.LogCaptureFixture) -> None:
    attempt = Attempt(number=3, trigger="reset", user="Ann B", reason='prices are "wrong"')
    signals.attempt_started.send(ROUTINE, attempt=attempt)
    [(level, line)] = lines(caplog)
    assert (level, line) == (
        "INFO",
        "event=started routine=shop.fill version=2 database=default attempt=3 trigger=reset "
        r'user="Ann B" reason="prices are \"wrong\""',
    )
    assert parsed(line)["reason"] == 'prices are "wrong"'


@pytest.mark.parametrize(
    ("outcome", "state", "message", "level"),
    [
        (Outcome.RAN, State.SUCCEEDED, "", "INFO"),
        (Outcome.RAN, State.SUCCEEDED, "Done and recorded, but afterwards: x", "WARNING"),
        (Outcome.FAILED, State.INTERRUPTED, "KeyboardInterrupt", "WARNING"),
        (Outcome.FAILED, State.LOST, "It lost its right.", "ERROR"),
        (Outcome.FAILED, State.FAILED, "LookupError", "ERROR"),
    ],
)
def test_end_is_as_loud_as_it_is_bad(
    outcome: Outcome, state: State, message: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = Attempt(number=3, trigger="startup", state=state)
    error = LookupError() if outcome is Outcome.FAILED else None
    result = Result(
        routine=ROUTINE, outcome=outcome, attempt=attempt, seconds=1.5, message=message, error=error
    )
    signals.attempt_finished.send(ROUTINE, result=result)
    [(logged, line)] = lines(caplog)
    expected = {
        "event": "finished",
        "routine": "shop.fill",
        "version": "2",
        "database": "default",
        "attempt": "3",
        "trigger": "startup",
        "state": state,
        "seconds": "1.500",
    }
    assert parsed(line) == expected | ({"message": message} if message else {})
    assert logged == level
    assert bool(caplog.records[0].exc_info) is (level == "ERROR")
    assert bool(caplog.records[0].exc_text) is (level == "ERROR")


def test_takeover_names_the_attempt_that_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    signals.attempt_lost.send(
        ROUTINE, attempt=Attempt(number=3, host="web-1", pid=7), successor=Attempt(number=4)
    )
    assert lines(caplog) == [
        (
            "WARNING",
            "event=took_over routine=shop.fill version=2 database=default attempt=4 lost=3 "
            "host=web-1 pid=7",
        )
    ]


@pytest.mark.parametrize(
    ("result", "level", "expected"),
    [
        (
            Result(
                routine=ROUTINE, outcome=Outcome.SKIPPED, reason=Reason.HELD, message="Held: decide"
            ),
            "INFO",
            'event=held routine=shop.fill version=2 database=default message="Held: decide"',
        ),
        (
            Result(routine=ROUTINE, outcome=Outcome.SKIPPED, retry_in=29.5, message="It failed"),
            "DEBUG",
            "event=put_off routine=shop.fill version=2 database=default retry_in=29.500 "
            'message="It failed"',
        ),
        (
            Result(routine=ROUTINE, outcome=Outcome.SKIPPED, message="Not tried"),
            "DEBUG",
            'event=skipped routine=shop.fill version=2 database=default message="Not tried"',
        ),
    ],
)
def test_what_is_left_says_why(
    result: Result, level: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    signals.skipped.send(ROUTINE, result=result)
    assert lines(caplog) == [(level, expected)]


def wait(seconds: float, reason: str = "pid 7 runs it") -> None:
    signals.waiting.send(None, name="shop.fill", reason=reason, waited=seconds)


def waited(seconds: float, message: str = "") -> None:
    signals.waited.send(None, name="shop.fill", waited=seconds, message=message)


def test_wait_that_lasts_is_a_warning_once_and_where_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for seconds in (0, 1.0, 2.0):
        wait(seconds)
    for seconds, reason in ((4.0, "pid 8 runs it"), (8.0, "pid 7 runs it"), (9.0, "pid 8 runs it")):
        wait(seconds, reason)
    waited(9.25)
    assert lines(caplog) == [
        ("DEBUG", 'event=waiting for=shop.fill seconds=0.000 reason="pid 7 runs it"'),
        ("WARNING", 'event=waiting for=shop.fill seconds=1.000 reason="pid 7 runs it"'),
        ("DEBUG", 'event=waiting for=shop.fill seconds=2.000 reason="pid 7 runs it"'),
        ("WARNING", 'event=waiting for=shop.fill seconds=4.000 reason="pid 8 runs it"'),
        ("DEBUG", 'event=waiting for=shop.fill seconds=8.000 reason="pid 7 runs it"'),
        ("DEBUG", 'event=waiting for=shop.fill seconds=9.000 reason="pid 8 runs it"'),
        ("WARNING", "event=waited for=shop.fill seconds=9.250"),
    ]
    caplog.clear()
    wait(1.0, "pid 8 runs it")  # another wait
    assert [level for level, _ in lines(caplog)] == ["WARNING"]


@pytest.mark.parametrize(("message", "level"), [("", "DEBUG"), ("left to a newer version", "INFO")])
def test_end_of_a_short_wait_is_as_quiet_as_its_beginning(
    message: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    wait(0)
    waited(0.5, message)
    assert [level for level, _ in lines(caplog)] == ["DEBUG", level]


def left(message: str, **values: Any) -> None:
    result = Result(routine=ROUTINE, outcome=Outcome.SKIPPED, message=message, **values)
    signals.skipped.send(ROUTINE, result=result)


def test_what_lasts_is_told_once_and_where_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    left("Held: decide", reason=Reason.HELD)
    left("Held: decide", reason=Reason.HELD)
    left("Held: look", reason=Reason.HELD)
    signals.attempt_started.send(ROUTINE, attempt=Attempt(number=4, trigger="reset"))
    left("Held: look", reason=Reason.HELD)
    assert [(level, line.split()[0].removeprefix("event=")) for level, line in lines(caplog)] == [
        ("INFO", "held"),
        ("DEBUG", "held"),
        ("INFO", "held"),
        ("INFO", "started"),
        ("INFO", "held"),
    ]


def test_other_number_of_seconds_is_no_news() -> None:
    states = ["Attempt 1 failed, again in 29 s", "Attempt 1 failed, again in 8.5 s", "Attempt 2 s"]
    told = [log.news(logging.INFO, "a", state) for state in states]
    assert told == [logging.INFO, logging.DEBUG, logging.INFO]


def test_process_in_which_nothing_changes_says_so_every_ten_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(log, "monotonic", lambda: now)
    told = []
    for minute in range(40):
        for name, level in (("a", logging.INFO), ("b", logging.INFO), ("c", logging.WARNING)):
            if log.news(level, name, "") == level:
                told.append((minute, name))
        now += 60.0
    assert told == [
        *((0, name) for name in "abc"),
        *((minute, name) for minute in (10, 20, 30) for name in "ac"),
    ]


def test_what_has_ended_is_news_again() -> None:
    assert log.news(logging.INFO, "a", "") == logging.INFO
    assert log.news(logging.INFO, "a", "") == logging.DEBUG
    log.forget("a")
    assert log.news(logging.INFO, "a", "") == logging.INFO


def test_end_of_a_short_wait_of_a_held_routine_is_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Result(routine=ROUTINE, outcome=Outcome.SKIPPED, reason=Reason.HELD, message="Held.")
    for _ in range(2):
        signals.skipped.send(ROUTINE, result=held)
        signals.waiting.send(None, name=ROUTINE.name, reason="run by web-2", waited=0.0)
        signals.waited.send(None, name=ROUTINE.name, waited=0.2, message="")
    levels = [level for level, line in lines(caplog) if "held" in line or "waited" in line]
    assert levels == ["INFO", "DEBUG", "DEBUG", "DEBUG"]


@contextmanager
def unconfigured() -> Iterator[StringIO]:
    """A context in which no logging is configured; what goes to stderr."""
    with pytest.MonkeyPatch.context() as patch:
        for each in (logging.root, log.logger):
            patch.setattr(each, "handlers", [])
        patch.setattr(log, "_handler", None)
        patch.setattr(sys, "stderr", StringIO())
        log.logger.setLevel(logging.NOTSET)  # caplog sets the former one again
        yield sys.stderr  # type: ignore[misc]


def test_events_are_printed_where_no_logging_is_configured() -> None:
    with unconfigured() as stderr:
        for _ in range(2):
            log.ensure_handler()
        log.tell(logging.INFO, "told", seconds=0.5)
        log.tell(logging.DEBUG, "told")
    [line] = stderr.getvalue().splitlines()
    assert line.endswith(f" {os.getpid()} INFO once event=told seconds=0.500")


@pytest.mark.parametrize("configured", ["parent", "logger", "level"])
def test_configured_logging_stays_as_it_is(configured: str) -> None:
    with unconfigured() as stderr:
        if configured == "level":
            log.logger.setLevel(logging.ERROR)
        else:
            logger = logging.root if configured == "parent" else log.logger
            logger.addHandler(logging.NullHandler())
        before = [*log.logger.handlers], log.logger.level
        log.ensure_handler()
        log.tell(logging.INFO, "told")
        assert (log.logger.handlers, log.logger.level) == before
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("logger", [logging.root, log.logger], ids=["parent", "logger"])
def test_handler_gives_way_to_one_that_comes_later(logger: logging.Logger) -> None:
    with unconfigured() as stderr:
        log.ensure_handler()
        logger.addHandler(logging.NullHandler())
        log.tell(logging.WARNING, "told")
        assert log.logger.level == logging.NOTSET
    assert stderr.getvalue() == ""


def test_level_of_a_project_that_configures_the_logger_later_stays() -> None:
    with unconfigured():
        log.ensure_handler()
        log.logger.addHandler(logging.NullHandler())
        log.logger.setLevel(logging.INFO)
        log.tell(logging.WARNING, "told")
        assert log.logger.level == logging.INFO


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "two words",
        "it's",
        'say "x"',
        "a=b",
        "C:\\new",
        "two\nlines\r\n",
        "\x1b[31mred\x00",
        "other\u2028ends\x85of\x0blines",
        "half \udce9 character",
        "é ü 漢字",
        " ",
        "event=forged",
    ],
)
def test_value_is_read_back_from_its_one_line(value: str, caplog: pytest.LogCaptureFixture) -> None:
    log.tell(logging.INFO, "told", message=value, seconds=0.5)
    [(_, line)] = lines(caplog)
    assert len(line.splitlines()) == 1
    line.encode()
    assert parsed(line) == {"event": "told", "message": value, "seconds": "0.500"}


def test_fields_that_say_nothing_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log.tell(logging.INFO, "told", user="", total=None, processed=0)
    assert lines(caplog) == [("INFO", "event=told processed=0")]


def test_record_has_the_fields_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    log.tell(logging.INFO, "told", message="two words", seconds=0.5)
    [record] = caplog.records
    assert record.__dict__["once"] == {"event": "told", "message": "two words", "seconds": 0.5}
    assert record.msg == "event=told message=%s seconds=%s"  # by which Sentry and others group
    assert record.funcName == sys._getframe().f_code.co_name


Event = tuple[str, frozenset[str], str]


def logged() -> Iterator[Event]:
    """Each event that the code tells, with its fields and its level, or ``""`` where that varies.

    A field that is spread from a mapping is named in it, or in ``_of``.
    """
    for path in sorted((ROOT / "once").rglob("*.py")):
        source = path.read_text()
        assert "event=" not in source or path.name == "log.py", f"{path} logs past tell()"
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Call(
                    func=ast.Name("tell"), args=[level, ast.Constant(str(name)), *_], keywords=given
                ):
                    fields = {each for keyword in given for each in _named(keyword)}
                    constant = level.attr if isinstance(level, ast.Attribute) else ""
                    yield name, frozenset(fields), constant


def _named(keyword: ast.keyword) -> list[str]:
    match keyword:
        case ast.keyword(arg=str(name)):
            return [name]
        case ast.keyword(value=ast.Dict(keys=keys)):
            return [key.value for key in keys if isinstance(key, ast.Constant)]  # type: ignore[misc]
        case ast.keyword(value=ast.Call(func=ast.Name("_of"))):
            return [*receivers._of(ROUTINE)]
    raise AssertionError(ast.dump(keyword))


def listed() -> Iterator[Event]:
    """Each event that the page lists, with its fields and its level, or ``""`` for several."""
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z, ]+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
    for name, levels, values in rows:
        named = frozenset(re.findall(r"`(\w+)`", values))
        yield name, named, "" if "," in levels else levels


def test_page_lists_what_the_code_logs() -> None:
    assert sorted(set(listed())) == sorted(set(logged()))


def test_page_describes_each_field() -> None:
    described = re.findall(r"^\| `(\w+)` \| (?:text|integer|seconds) \|", PAGE, re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == {"event"}.union(*(fields for _, fields, _ in logged()))


def test_page_describes_each_signal() -> None:
    described = re.findall(r"^\| `(\w+)` \| (?:its routine|none) \|", PAGE, re.MULTILINE)
    assert sorted(described) == sorted(signals.__all__)
    for named in re.findall(r"`result`:((?: `\w+`,?)+)", PAGE):
        assert set(re.findall(r"\w+", named)) <= {each.name for each in fields(Result)}


def snippet(place: str) -> str:
    [found] = re.findall(rf"```python\n# {place}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_snippet_reads_a_line(caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, Callable[[str], dict[str, str]]] = {}
    exec(snippet("shop/lines.py"), names)
    log.tell(logging.INFO, "told", message='say "x"\n', seconds=0.5)
    [(_, line)] = lines(caplog)
    assert names["fields"](line) == {"event": "told", "message": 'say "x"\n', "seconds": "0.500"}


def test_snippet_logs_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, Callable[[], logging.Formatter]] = {}
    exec(snippet("shop/log.py"), names)
    with override_settings(ONCE_SCRUB="tests.unit.test_text.removed"):
        log.tell(logging.ERROR, "told", ValueError("hunter2"))
        [record] = caplog.records
        told = json.loads(names["JSONFormatter"]().format(record))
    assert told["traceback"] == "ValueError: [removed]"


def test_snippet_logs_json(caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, Callable[[], logging.Formatter]] = {}
    exec(snippet("shop/log.py"), names)
    log.tell(logging.INFO, "told", message="two words", seconds=0.5)
    [record] = caplog.records
    assert json.loads(names["JSONFormatter"]().format(record)) == {
        "level": "INFO",
        "logger": "once",
        "event": "told",
        "message": "two words",
        "seconds": 0.5,
    }


def test_snippet_sends_a_mail_about_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(mail, "mail_admins", lambda *mail: sent.append(mail))
    names: dict[str, Callable[..., None]] = {}
    exec(snippet("shop/notices.py"), names)
    for state in ("succeeded", "failed"):
        attempt = Attempt(number=3, trigger="startup", state=state)
        result = Result(routine=ROUTINE, outcome=Outcome.FAILED, attempt=attempt, message="Why.")
        signals.attempt_finished.send(ROUTINE, result=result)
    assert sent == [("shop.fill failed", "Why.")]
