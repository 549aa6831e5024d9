"""The command: flags, exit codes, and what goes to which stream."""

import json
import os
import signal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, transaction

from once import Routine, ledger, migrate, record, signals
from once.databases import database
from once.management.commands.once import Command
from once.models import Completion, State
from tests.database.support import attempts, begin, effects, receiving, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

KEYS = {
    *("name", "version", "recorded_version", "scope", "kind", "state", "database", "attempts"),
    *("started_at", "completed_at", "duration_seconds", "host", "pid", "processed", "total"),
    *("rate", "seconds_left", "retry_at", "error"),
}


class Answer:
    """What a call of the command gave: its exit code, streams, and message."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        out, err = StringIO(), StringIO()
        self.code, self.message = 0, ""
        try:
            call_command("once", *arguments, stdout=out, stderr=err, no_color=True, **options)
        except CommandError as error:
            self.code, self.message = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()

    @property
    def json(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.out)
        return shown


def failing(using: str, name: str = "shop.bad", **options: Any) -> Routine:
    def body() -> None:
        raise LookupError("no such currency")

    return seed(using, name, function=body, **options)


# run


def test_run_runs_everything_that_is_pending(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", startup=False)]
    answer = Answer("run")
    assert (answer.code, answer.err) == (0, "")
    assert effects(using) == ["a", "b"]
    assert "  Running a... OK (0." in answer.out
    assert "  Running b... OK (0." in answer.out
    assert {attempt.trigger for attempt, _ in record.last_attempts(using).values()} == {"command"}


def test_run_where_everything_is_done_says_so(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    Answer("run")
    assert Answer("run").out == "  No routines to run.\n"
    assert effects(using) == ["shop.seed"]


def test_run_without_routines_says_so() -> None:
    assert Answer("run").out == "  No routines to run.\n"


def test_run_calls_process_routines_too(declared: list[Routine]) -> None:
    calls: list[int] = []
    declared.append(Routine(function=lambda: calls.append(1), name="x", scope="process"))
    Answer("run")
    assert calls == [1]


def test_run_of_a_name_runs_its_predecessors_and_nothing_else(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"]), seed(using, "c")]
    assert Answer("run", "b").code == 0
    assert effects(using) == ["a", "b"]


@pytest.mark.parametrize("subcommand", ["run", "status", "wait"])
def test_unknown_name_is_a_usage_error(subcommand: str, declared: list[Routine]) -> None:
    declared.append(seed("default"))
    answer = Answer(subcommand, "shop.gone")
    assert answer.code == 2
    assert answer.message == (
        "No routine is named 'shop.gone', and no app with routines. Routines here: shop.seed."
    )


def test_fake_records_without_running(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    answer = Answer("run", "--fake", "b")
    assert answer.code == 0
    assert "  Recording b... OK" in answer.out
    assert effects(using) == []
    assert attempts(using) == [("b", 1, "succeeded")]
    assert record.last_attempts(using)["b"][0].trigger == "fake"


def test_fake_without_a_name_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    answer = Answer("run", "--fake")
    assert (answer.code, answer.message) == (2, "--fake needs the NAME of each routine.")
    assert attempts("default") == []


def test_no_wait_leaves_out_what_another_process_runs(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).guard("shop.seed", 15.0) as guard:
        take(guard)
        answer = Answer("run", "--no-wait")
    assert answer.code == 3
    assert "Not everything is done." in answer.message
    assert "shop.seed is run by" in answer.message
    assert "without --no-wait" in answer.message
    assert effects(using) == []


def test_timeout_names_the_holder(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).guard("shop.seed", 15.0) as guard:
        take(guard)
        answer = Answer("run", "--timeout", "0.2")
    assert answer.code == 4
    holder = f"(pid {os.getpid()})" if using == "default" else "another thread"
    assert "Gave up after 0.2 s: shop.seed is run by" in answer.message
    assert holder in answer.message
    assert "  Waiting for 0.0s: shop.seed is run by" in answer.out
    assert holder in answer.out


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("-1", "-1 is no number of seconds"),
        ("inf", "inf is no number of seconds"),
        ("nan", "nan is no number of seconds"),
        ("soon", "invalid"),
    ],
)
@pytest.mark.parametrize("subcommand", ["run", "wait"])
def test_impossible_timeout_is_a_usage_error(subcommand: str, value: str, words: str) -> None:
    answer = Answer(subcommand, f"--timeout={value}")
    assert f"argument --timeout: {words}" in answer.message


def test_failing_routine_shows_its_traceback(using: str, declared: list[Routine]) -> None:
    declared += [failing(using), seed(using)]
    answer = Answer("run")
    assert answer.code == 1
    assert answer.message.startswith("shop.bad failed. LookupError: no such currency.")
    assert "Traceback (most recent call last)" in answer.err
    assert answer.err.endswith("LookupError: no such currency\n")
    assert "  Running shop.bad... FAILED (0." in answer.out
    assert effects(using) == []


def test_failure_comes_before_the_rest_in_the_exit_code(
    declared: list[Routine],
) -> None:
    declared += [seed("sqlite"), failing("default")]
    with database("sqlite").guard("shop.seed", 15.0) as guard:
        take(guard)
        assert Answer("run", "--no-wait").code == 1


def test_blocked_routine_says_the_next_step(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using))
    monkeypatch.setattr(migrate, "unapplied", lambda using: ["shop.0002_more"])
    answer = Answer("run")
    assert answer.code == 3
    assert "lacks migrations of this code (shop.0002_more)" in answer.message
    assert "Run `manage.py once run --migrate`" in answer.message


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGTERM, 143, "Ended by SIGTERM."), (signal.SIGINT, 130, "Interrupted.")],
)
def test_signal_ends_a_run_cleanly(
    using: str, declared: list[Routine], number: signal.Signals, code: int, message: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def body() -> None:
        os.kill(os.getpid(), number)

    declared.append(seed(using, function=body))
    answer = Answer("run")
    assert (answer.code, answer.message) == (code, message)
    assert attempts(using) == [("shop.seed", 1, "interrupted")]
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_from_the_command_line_exits_with_the_code(
    declared: list[Routine], capsys: pytest.CaptureFixture[str]
) -> None:
    declared.append(seed("default"))
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "once", "status", "--check"])
    assert ended.value.code == 3
    assert "CommandError: Not done: shop.seed (pending). Next: " in capsys.readouterr().err


def test_missing_subcommand_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command()
    with pytest.raises(SystemExit) as ended:
        command.run_from_argv(["manage.py", "once"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "arguments", [["-v0", "run"], ["run", "-v0"], ["run", "--verbosity", "0"]], ids=" ".join
)
def test_verbosity_0_is_silent_before_and_after_the_subcommand(
    declared: list[Routine], arguments: list[str]
) -> None:
    declared.append(seed("default"))
    for _ in range(2):
        answer = Answer(*arguments)
        assert (answer.code, answer.out, answer.err) == (0, "", "")
    assert effects("default") == ["shop.seed"]


@pytest.mark.parametrize(
    "arguments", [["--traceback", "run"], ["run", "--traceback"]], ids=" ".join
)
def test_options_of_django_are_taken_before_and_after_the_subcommand(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, Any]] = []
    monkeypatch.setattr(Command, "run", lambda self, found, **options: got.append(options))
    Answer(*arguments)
    assert got[0]["traceback"] is True
    assert got[0]["verbosity"] == 1


def test_run_reports_a_hook_that_failed_and_is_done(using: str, declared: list[Routine]) -> None:
    def fail() -> None:
        raise LookupError("no mail server")

    declared.append(seed(using, function=lambda: transaction.on_commit(fail, using=using)))
    answer = Answer("run")
    assert answer.code == 0
    assert "Done and recorded, but afterwards: LookupError: no mail server" in answer.out


# --json


def test_run_json_is_one_object_and_nothing_else(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", version=3)]
    run(declared[0])
    answer = Answer("run", "--json")
    assert answer.code == 0
    shown = answer.json
    assert set(shown) == {"schema", "done", "counts", "routines"}
    assert (shown["schema"], shown["done"], shown["counts"]) == (1, True, {"completed": 2})
    assert [set(row) for row in shown["routines"]] == [KEYS | {"outcome"}] * 2
    assert [row["outcome"] for row in shown["routines"]] == ["already_done", "ran"]
    b = shown["routines"][1]
    assert (b["name"], b["version"], b["recorded_version"], b["scope"]) == ("b", 3, 3, "database")
    assert (b["state"], b["database"], b["attempts"], b["pid"]) == (
        "completed",
        using,
        1,
        os.getpid(),
    )
    assert b["error"] is None
    assert b["duration_seconds"] >= 0
    assert b["started_at"] <= b["completed_at"]
    assert "Running b" in answer.err


def test_run_json_of_a_failure_exits_1(using: str, declared: list[Routine]) -> None:
    declared += [failing(using), seed(using)]
    answer = Answer("run", "--json")
    assert answer.code == 1
    shown = answer.json
    assert (shown["done"], shown["counts"]) == (False, {"failed": 1, "pending": 1})
    assert [row["outcome"] for row in shown["routines"]] == ["failed", "skipped"]
    assert shown["routines"][0]["error"].endswith("LookupError: no such currency\n")


def test_run_json_of_a_name_shows_what_the_run_was_about(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("default", "b", after=["a"]), seed("default", "c")]
    shown = Answer("run", "b", "--json").json
    assert [row["name"] for row in shown["routines"]] == ["a", "b"]
    assert shown["done"] is True


def test_status_json_has_the_keys_of_the_contract(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("status", "--json")
    shown = answer.json
    assert set(shown) == {"schema", "done", "counts", "routines"}
    assert (shown["schema"], shown["done"], shown["counts"]) == (1, False, {"pending": 1})
    (row,) = shown["routines"]
    assert set(row) == KEYS
    assert (row["name"], row["version"], row["state"]) == ("shop.seed", 1, "pending")
    assert (row["recorded_version"], row["attempts"], row["started_at"]) == (None, 0, None)
    assert answer.err == ""


# status


def test_status_shows_how_every_routine_stands(using: str, declared: list[Routine]) -> None:
    in_memory = Routine(function=lambda: None, name="in_memory", scope="process")
    declared += [in_memory, seed(using, "done"), failing(using, "bad"), seed(using, "open")]
    declared += [seed(using, "old"), seed(using, "again", version=2)]
    run(seed(using, "done"))
    run(seed(using, "old", version=2))
    run(seed(using, "again", version=1))
    run(declared[2])
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    Completion.objects.using(using).create(routine="once.migrate", version=1)
    shown = Answer("status", "--json").json
    states = {row["name"]: row["state"] for row in shown["routines"]}
    assert states == {
        "in_memory": "pending",
        "done": "completed",
        "bad": "failed",
        "open": "pending",
        "old": "superseded",
        "again": "pending",
        "elsewhere": "unknown",
    }
    answer = Answer("status")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].split()[:5] == ["[", "]", "in_memory", "v1", "pending"]
    assert lines[1].split()[:4] == ["[X]", "done", "v1", "completed"]
    assert lines[2].split()[:5] == ["[", "]", "bad", "v1", "failed"]
    assert lines[3] == "      LookupError: no such currency"
    assert "(v1 is recorded)" in lines[6]
    assert lines[7].split()[2:5] == ["elsewhere", "v4", "unknown"]


def test_status_of_names_shows_those(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    wanted = ["b"] if using == "sqlite" else ["b", "elsewhere"]
    shown = Answer("status", *wanted, "--json").json
    assert [row["name"] for row in shown["routines"]] == wanted


def test_status_without_routines_says_where_they_go() -> None:
    assert Answer("status").out == "No routines. Declare them in the routines.py of an app.\n"


def test_check_is_0_where_everything_is_done_else_3(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("status", "--check")
    assert (answer.code, answer.message) == (
        3,
        "Not done: shop.seed (pending). Next: `manage.py once run`.",
    )
    run(seed(using))
    assert Answer("status", "--check").code == 0


def test_status_of_a_running_routine_says_who_and_since_when(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    with database(using).guard("shop.seed", 15.0) as guard:
        take(guard)
        begin(seed(using))
        answer = Answer("status")
        assert "running  since 20" in answer.out
        assert f"(pid {os.getpid()})" in answer.out


def test_status_of_an_abandoned_attempt_says_who_takes_over(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    begin(seed(using))
    answer = Answer("status")
    assert "pending" in answer.out
    assert "takes over." in answer.out


def test_status_of_a_routine_with_history_counts_its_attempts(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    for _ in range(2):
        ledger.close(begin(seed(using)), State.FAILED)
    run(seed(using))
    assert "(3 attempts)" in Answer("status").out


def test_status_of_a_database_that_cannot_be_read_fails_in_one_line(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(using: str) -> bool:
        raise OperationalError("no route to host")

    declared.append(seed("default"))
    monkeypatch.setattr(record, "is_installed", refuse)
    answer = Answer("status")
    assert (answer.code, answer.message) == (
        1,
        "A database cannot be used: OperationalError: no route to host",
    )


# wait


def test_wait_returns_at_once_where_everything_is_done(using: str, declared: list[Routine]) -> None:
    declared += [seed(using), seed(using, "by_hand", startup=False)]
    run(seed(using))
    answer = Answer("wait")
    assert (answer.code, answer.out) == (0, "")
    assert Answer("wait", "by_hand", "--timeout", "0").code == 4


def test_wait_without_routines_returns_at_once() -> None:
    assert Answer("wait", "--timeout", "0").code == 0


def test_wait_gives_up_and_runs_nothing(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    answer = Answer("wait", "--timeout", "0.1")
    assert answer.code == 4
    assert "a is pending, and 1 more" in answer.message
    assert effects(using) == []


def test_wait_names_who_runs_it(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b")]
    with database(using).guard("b", 15.0) as guard:
        take(guard)
        attempt = begin(seed(using, "b"))
        answer = Answer("wait", "--timeout", "0")
    assert f"b is running on {attempt.host} (pid {os.getpid()}), and 1 more" in answer.message


def test_wait_ends_when_another_process_has_done_it(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    reasons: list[str] = []

    def complete(reason: str, **kwargs: Any) -> None:
        reasons.append(reason)
        run(seed(using))

    with receiving(signals.waiting, complete):
        answer = Answer("wait")
    assert answer.code == 0
    assert reasons == ["shop.seed is pending"]
    assert effects(using) == ["shop.seed"]
