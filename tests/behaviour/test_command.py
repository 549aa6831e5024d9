"""The command: flags, exit codes, and what goes to which stream."""

import getpass
import json
import os
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connections, transaction
from django.db.models import F

from once import Routine, cli, content, signals
from once.databases import database, unapplied
from once.exceptions import UnknownRoutine
from once.management.commands.once import Command
from once.models import Anchor, Attempt, Completion, State
from once.record import history, recorder
from once.routines.registry import match
from once.status import reading
from tests.support import attempts, begin, effects, last, receiving, rows, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])

#: Of each routine, in this order: programs rely on it.
KEYS = [
    *("name", "version", "recorded_version", "scope", "kind", "state", "database", "attempts"),
    *("started_at", "completed_at", "duration_seconds", "host", "pid", "processed", "total"),
    *("rate", "seconds_left", "retry_at", "error", "waits_for", "message"),
]


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
    assert "  a... OK (0." in answer.out
    assert "  b... OK (0." in answer.out
    assert {attempt.trigger for attempt in reading.last_attempts(using).values()} == {"command"}


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


def test_run_of_what_is_done_says_since_when_and_what_to_do(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    Answer("run")
    again = Answer("run", "b")
    assert re.fullmatch(
        r"  b is done already: completed 20[-\d]{8} [:\d]{8} \w+ on \S+\. To have it run again, "
        r"call `manage\.py once reset b` first\.\n",
        again.out,
    )
    reset("b")
    assert "  b... OK (0." in Answer("run", "b").out
    declared += [seed(using, f"c{number}") for number in range(6)]
    Answer("run")
    assert Answer("run", "c*").out == "  No routines to run.\n"


@pytest.mark.parametrize(
    ("given", "meant"), [("shop.sed", "shop.seed"), ("shpo", "shop"), ("pay", "bank.pay")]
)
def test_name_with_a_slip_is_a_question(given: str, meant: str, declared: list[Routine]) -> None:
    declared += [seed("default"), seed("default", "bank.pay")]
    labelled = {"shop.seed": "shop", "bank.pay": "bank"}
    with pytest.raises(
        UnknownRoutine, match=f"Did you mean {meant}\\? Routines here: shop.seed, b"
    ):
        match([given], labelled)
    many = {f"shop.r{number}": "" for number in range(30)}
    with pytest.raises(UnknownRoutine, match=r"shop\.r19, and 10 more\.$"):
        match(["bank"], many)


def test_run_says_nothing_of_routines_of_other_databases(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b")]
    assert Answer("run", "b").code == 0
    out = Answer("run", "a", "b", "--database", "sqlite").out
    assert "a is done already" not in out
    assert "b is done already" in out


def test_fake_records_without_running(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"])]
    answer = Answer("run", "--fake", "b")
    assert answer.code == 0
    assert "  b... OK" in answer.out
    assert effects(using) == []
    assert attempts(using) == [("b", 1, "succeeded")]
    assert reading.last_attempts(using)["b"].trigger == "fake"


def test_fake_without_a_name_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(seed("default"))
    answer = Answer("run", "--fake")
    assert (answer.code, answer.message) == (2, "--fake needs the NAME of each routine.")
    assert attempts("default") == []


def test_no_wait_leaves_out_what_another_process_runs(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
        answer = Answer("run", "--no-wait")
    assert answer.code == 3
    assert "Not everything is done." in answer.message
    assert "shop.seed is run by" in answer.message
    assert "without --no-wait" in answer.message
    assert effects(using) == []


def test_timeout_names_the_holder(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
        answer = Answer("run", "--timeout", "1")
    assert answer.code == 4
    told = {"mysql": "(session ", "postgresql": f"(pid {os.getpid()})", "sqlite": "another thread"}
    holder = told[connections[using].vendor]
    # From the beginning of the wait, which is a little later than that of the run.
    assert re.search(r"Gave up after \d\.\d s: shop\.seed is run by", answer.message)
    assert holder in answer.message
    assert re.search(r"  Waiting for \d+(\.\d)?s: shop.seed is run by", answer.out)
    assert holder in answer.out


@pytest.mark.parametrize("value", ["-1", "soon", "inf", "nan"])
@pytest.mark.parametrize("subcommand", ["run", "wait"])
def test_impossible_timeout_is_a_usage_error(subcommand: str, value: str) -> None:
    answer = Answer(subcommand, f"--timeout={value}")
    assert f"argument --timeout: {value!r} is no number of seconds" in answer.message


def test_failing_routine_shows_its_traceback(using: str, declared: list[Routine]) -> None:
    declared += [failing(using), seed(using)]
    answer = Answer("run")
    assert answer.code == 1
    assert answer.message == (
        "shop.bad failed. LookupError: no such currency. Nothing of its transaction was "
        "committed. Fix the cause and run this again."
    )
    assert "Traceback (most recent call last)" in answer.err
    assert answer.err.endswith("LookupError: no such currency\n")
    assert "  shop.bad... FAILED (0." in answer.out
    assert effects(using) == []


def test_failure_comes_before_the_rest_in_the_exit_code(
    declared: list[Routine],
) -> None:
    declared += [seed("sqlite"), failing("default")]
    with database("sqlite").lock("shop.seed", 15.0) as lock:
        take(lock)
        assert Answer("run", "--no-wait").code == 1


def test_blocked_routine_says_the_next_step(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using))
    monkeypatch.setattr(unapplied, "names", lambda using: ["shop.0002_more"])
    answer = Answer("run")
    assert answer.code == 3
    assert "lacks migrations of this code (shop.0002_more)" in answer.message
    assert "Run `manage.py once run --migrate`" in answer.message


@pytest.mark.parametrize("table", ["completion", "attempt"])
def test_run_on_tables_that_are_lost_says_so_and_does_not_wait(
    table: str, using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    rows(using, f"ALTER TABLE once_{table} RENAME TO elsewhere")
    try:
        answer = Answer("run")
        assert answer.code == 3
        assert "missing, though their migration is recorded. Restore them, or" in answer.message
    finally:
        rows(using, f"ALTER TABLE elsewhere RENAME TO once_{table}")
    assert Answer("run").code == 0


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
    got: list[Namespace] = []
    monkeypatch.setattr(cli.run, "handle", lambda *given: got.append(given[-1]))
    Answer(*arguments)
    assert (got[0].traceback, got[0].verbosity) == (True, 1)


def test_run_reports_a_hook_that_failed_and_is_done(using: str, declared: list[Routine]) -> None:
    def fail() -> None:
        raise LookupError("no mail server")

    declared.append(seed(using, function=lambda: transaction.on_commit(fail, using=using)))
    answer = Answer("run")
    assert answer.code == 0
    assert "Done and recorded, but afterwards: LookupError: no mail server" in answer.out


def failing_at(using: str, fails_at: int, name: str = "shop.fill", **options: Any) -> Routine:
    """Five items in batches of two; it fails at one of them."""

    def body(batch: list[int]) -> None:
        if fails_at in batch:
            raise LookupError("no such item")

    return seed(using, name, function=body, over=lambda: [1, 2, 3, 4, 5], batch_size=2, **options)


def held(using: str, name: str = "shop.held") -> Routine:
    """A routine that failed and may not be tried again."""
    routine = failing(using, name, atomic=False, retry=False)
    run(routine)
    return routine


def test_plan_shows_what_is_pending_in_order_and_runs_nothing(
    using: str, declared: list[Routine]
) -> None:
    calls: list[int] = []
    declared += [
        Routine(function=lambda: calls.append(1), name="in_memory", scope="process"),
        *(seed(using, "b", after=["a"]), seed(using, "a"), seed(using, "done")),
    ]
    run(declared[-1])
    answer = Answer("run", "--plan")
    assert answer.code == 0
    assert [line.partition("  in ")[0] for line in answer.out.splitlines()] == [
        "To be run, in this order:",
        "  [ ] a  v1  pending",
        "  [ ] b  v1  pending",
    ]
    assert effects(using) == ["done"]
    assert calls == []
    assert len(attempts(using)) == 1


def test_plan_shows_what_failed_with_its_error(using: str, declared: list[Routine]) -> None:
    declared.append(failing(using))
    run(declared[0])
    head, state, error = Answer("run", "--plan").out.splitlines()
    assert head == "To be run, in this order:"
    assert state.startswith("  [ ] shop.bad  v1  failed  20")
    assert error == "        LookupError: no such currency"
    shown = Answer("run", "--plan", "--json").json
    assert (shown["done"], shown["routines"][0]["state"]) == (False, "failed")
    assert len(attempts(using)) == 1


def test_plan_leaves_out_what_waits_for_what_is_held(using: str, declared: list[Routine]) -> None:
    declared += [held(using), seed(using, "shop.next", after=["shop.held"])]
    told = Answer("run", "--plan").out
    _, runs, halted = re.split("To be run, in this order:|Not to be run:", told)
    assert "shop.next" not in runs
    assert "Waits for shop.held, which is held." in halted


def test_plan_of_a_name_shows_its_predecessors(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"]), seed(using, "c")]
    shown = Answer("run", "--plan", "b", "--json").json
    assert [row["name"] for row in shown["routines"]] == ["a", "b"]
    assert (shown["done"], shown["counts"]) == (False, {"pending": 2})


def test_plan_of_nothing_says_so(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    run(declared[0])
    assert "  No routines to run.\n" in Answer("run", "--plan").out


def test_plan_shows_what_would_not_run_and_why(using: str, declared: list[Routine]) -> None:
    declared.append(held(using))
    declared.append(seed(using, "open"))
    shown, advice = Answer("run", "--plan").out.split("Not to be run:\n")
    assert "  [ ] open  v1  pending" in shown
    assert "held" not in shown
    assert "[ ] shop.held  v1  held" in advice
    assert "`manage.py once reset shop.held`" in advice


@pytest.mark.parametrize("other", ["--fake", "--migrate"])
def test_plan_with_what_would_write_is_a_usage_error(
    using: str, declared: list[Routine], other: str
) -> None:
    declared.append(seed(using))
    answer = Answer("run", "--plan", other, "shop.seed")
    assert answer.code == 2
    assert answer.message.startswith("--plan runs nothing.")
    assert attempts(using) == []


def test_fake_goes_into_the_history_with_who_and_why(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    declared.append(seed(using))
    assert Answer("run", "--fake", "shop.*", "--reason", "loaded by hand").code == 0
    row = last(using)
    assert (row.trigger, row.user, row.reason) == ("fake", "ada", "loaded by hand")
    assert effects(using) == []


def test_user_without_a_name_goes_by_a_number(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(getpass, "getuser", refuse)
    declared.append(seed(using))
    assert Answer("run", "--fake", "shop.seed").code == 0
    assert last(using).user == f"uid {os.getuid()}"


def test_run_says_no_user_in_the_history(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    Answer("run")
    assert (last(using).user, last(using).reason) == ("", "")


@pytest.mark.parametrize(
    ("said", "kept"), [(os.fsdecode(b"ad\xe4"), "ad\\udce4"), ("é" * 300, "é" * 255)]
)
def test_user_whose_name_no_database_takes_is_escaped(
    using: str, said: str, kept: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", said)
    declared.append(seed(using))
    assert Answer("run", "--fake", "shop.seed").code == 0
    assert last(using).user == kept


@pytest.mark.parametrize("reason", ["a\0", os.fsdecode(b"a\xff")])
@pytest.mark.parametrize("command", [("run", "--fake"), ("reset",)])
def test_reason_that_no_database_takes_is_a_usage_error(
    command: tuple[str, ...],
    reason: str,
    declared: list[Routine],
    capsys: pytest.CaptureFixture[str],
) -> None:
    declared.append(seed("default"))
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "once", *command, "shop.seed", "--reason", reason])
    assert ended.value.code == 2
    assert f"argument --reason: {reason!r} is no text." in capsys.readouterr().err
    assert attempts("default") == []


def test_reason_without_fake_is_a_usage_error(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    answer = Answer("run", "--reason", "because")
    assert answer.code == 2
    assert answer.message.startswith("--reason says why routines are recorded by --fake.")
    assert attempts(using) == []


def test_fake_is_done_for_the_run_that_follows(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"]), failing(using)]
    run(declared[2])
    fake = ("run", "--fake", "b", "shop.bad")
    assert Answer(*fake).code == 0
    assert "  shop.bad is done already: completed 20" in Answer(*fake).out
    rows = Answer("run", "--json").json["routines"]
    assert [row["outcome"] for row in rows] == ["ran", "already_done", "already_done"]
    assert effects(using) == ["a"]


def test_fake_records_what_is_held(using: str, declared: list[Routine]) -> None:
    declared.append(held(using))
    assert Answer("run").code == 5
    assert Answer("run", "--fake", "shop.held").code == 0
    assert Answer("run").code == 0


@pytest.mark.parametrize("subcommand", ["run", "status", "wait"])
def test_scope_that_lacks_what_it_needs_is_a_usage_error(
    subcommand: str, using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using, scope="release"))
    answer = Answer(subcommand)
    assert answer.code == 2
    assert "'shop.seed' has scope=\"release\", but ONCE_RELEASE is unset" in answer.message


def test_name_that_is_in_another_database_is_a_usage_error(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b")]
    answer = Answer("run", "a", "--database", "sqlite")
    assert answer.code == 2
    assert answer.message.startswith("None of these is in database 'sqlite'.")


def test_keep_going_runs_what_is_not_behind_the_failure(
    using: str, declared: list[Routine]
) -> None:
    declared += [failing(using), seed(using, "behind", after=["shop.bad"])]
    declared += [seed(using, "far", after=["behind"]), seed(using, "apart")]
    answer = Answer("run", "--keep-going")
    assert answer.code == 1
    assert effects(using) == ["apart"]
    assert answer.message.startswith("shop.bad failed. LookupError: no such currency.")
    rows = Answer("run", "--keep-going", "--json").json["routines"]
    assert [row["outcome"] for row in rows] == ["failed", "skipped", "skipped", "already_done"]


def test_keep_going_names_every_failure(using: str, declared: list[Routine]) -> None:
    declared += [failing(using, "one"), failing(using, "two")]
    answer = Answer("run", "--keep-going")
    assert [line.partition(" ")[0] for line in answer.message.splitlines()] == ["one", "two"]


def test_database_leaves_out_the_routines_of_others(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b"), seed("default", "c")]
    assert Answer("run", "--database", "sqlite").code == 0
    assert (effects("default"), effects("sqlite")) == ([], ["b"])


def test_database_runs_the_predecessors_in_other_databases(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b", after=["a"]), seed("default", "c")]
    assert Answer("run", "--database", "sqlite").code == 0
    assert (effects("default"), effects("sqlite")) == (["a"], ["b"])


@pytest.mark.parametrize("arguments", [["run"], ["call", "prices", "check"]], ids=" ".join)
def test_unknown_database_is_a_usage_error(arguments: list[str]) -> None:
    answer = Answer(arguments[0], "--database", "gone", *arguments[1:])
    assert "argument --database: 'gone' is not in DATABASES, which has default, sqlite" in (
        answer.message
    )


def test_run_takes_labels_and_patterns(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "shop.load_a"), seed(using, "shop.load_b"), seed(using, "shop.seed")]
    assert Answer("run", "shop.load_*").code == 0
    assert effects(using) == ["shop.load_a", "shop.load_b"]


def test_held_routine_exits_5_and_says_what_to_do(using: str, declared: list[Routine]) -> None:
    declared += [held(using), seed(using, "apart")]
    answer = Answer("run")
    assert answer.code == 5
    assert answer.message.startswith("Not everything is done.\n  shop.held: Held, since retry=Fal")
    assert effects(using) == ["apart"]


def test_failure_comes_before_what_is_held_in_the_exit_code(
    using: str, declared: list[Routine]
) -> None:
    declared += [held(using), failing(using)]
    assert Answer("run").code == 1


def test_held_comes_before_what_others_run_in_the_exit_code(declared: list[Routine]) -> None:
    declared += [held("default"), seed("sqlite")]
    with database("sqlite").lock("shop.seed", 15.0) as lock:
        take(lock)
        assert Answer("run", "--no-wait").code == 5
        assert Answer("run", "--timeout", "0").code == 5


class Terminal(StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


def test_batches_draw_a_bar_in_a_terminal(using: str, declared: list[Routine]) -> None:
    declared.append(failing_at(using, 99))
    out = Terminal()
    call_command("once", "run", stdout=out, no_color=True)
    assert "  shop.fill: 100%" in out.getvalue()
    assert "5.00/5.00" in out.getvalue()


def test_batches_draw_no_bar_in_a_log(using: str, declared: list[Routine]) -> None:
    declared.append(failing_at(using, 99))
    answer = Answer("run")
    assert answer.out.startswith("  Running shop.fill...\n  shop.fill... OK (0.")
    assert answer.err == ""


# --json


def test_run_json_is_one_object_and_nothing_else(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", version=3)]
    run(declared[0])
    answer = Answer("run", "--json")
    assert answer.code == 0
    shown = answer.json
    assert list(shown) == ["schema", "done", "counts", "routines"]
    assert (shown["schema"], shown["done"], shown["counts"]) == (1, True, {"completed": 2})
    assert [list(row) for row in shown["routines"]] == [[*KEYS, "outcome"]] * 2
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
    assert list(shown) == ["schema", "done", "counts", "unapplied", "unread", "routines"]
    assert (shown["schema"], shown["done"], shown["counts"]) == (1, False, {"pending": 1})
    (row,) = shown["routines"]
    assert list(row) == KEYS
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
    shown = Answer("status", "b", "else*", "--json").json
    assert [row["name"] for row in shown["routines"]] == ["b", "elsewhere"]


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
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
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


@pytest.mark.parametrize(
    ("state", "ended"),
    [(State.INTERRUPTED, "was interrupted"), (State.LOST, "died, or was cut off")],
)
def test_status_of_an_attempt_that_ended_early_says_how(
    state: State, ended: str, using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    attempt = begin(seed(using))
    recorder.close(attempt, state, "")
    assert (
        f"Attempt 1 on {attempt.host} (pid {attempt.pid}) {ended}. The next" in Answer("status").out
    )
    reset("shop.seed")
    Answer("run")
    reset("shop.seed")
    assert Answer("status").out.count("\n") == 1


def test_status_of_a_routine_with_history_counts_its_attempts(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    for _ in range(2):
        recorder.close(begin(seed(using)), State.FAILED)
    run(seed(using))
    assert "(3 attempts)" in Answer("status").out


def test_status_of_a_database_that_cannot_be_read_fails_in_one_line(
    declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(using: str) -> bool:
        raise OperationalError("no route to host")

    declared.append(seed("default"))
    monkeypatch.setattr(history, "is_installed", refuse)
    answer = Answer("status")
    assert (answer.code, answer.message) == (
        4,
        "A database cannot be used: OperationalError: no route to host",
    )


def test_status_shows_the_progress_of_what_is_not_done(using: str, declared: list[Routine]) -> None:
    declared.append(failing_at(using, 4))
    run(declared[0])
    line = Answer("status").out.splitlines()[0]
    assert line.startswith("[ ] shop.fill  v1  failed  20")
    assert "  batched  2 of 5 (40%), " in line
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["kind"], row["processed"], row["total"]) == ("batched", 2, 5)
    assert row["rate"] > 0
    assert row["seconds_left"] is None  # nobody is at it
    run(failing_at(using, 99))
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["state"], row["processed"], row["total"]) == ("completed", 5, 5)
    assert (row["rate"] > 0, row["seconds_left"]) == (True, None)


def test_status_shows_the_progress_of_what_runs_and_the_time_left(
    using: str, declared: list[Routine]
) -> None:
    routine = failing_at(using, 4)
    declared.append(routine)
    run(routine)
    with database(using).lock(routine.name, 15.0) as lock:
        take(lock)
        attempt = begin(routine)
        recorder.resume(attempt, recorder.progress(attempt))
        recorder.advance(attempt, attempt.cursor, "further", 2)
        # Two items of its own in 100 s, so that the last one takes another 50 s.
        mine = Attempt.objects.using(using).filter(pk=attempt.pk)
        mine.update(started_at=F("started_at") - timedelta(seconds=100))
        answer, shown = Answer("status"), Answer("status", "--json").json
    (row,) = shown["routines"]
    assert (row["state"], row["processed"], row["total"]) == ("running", 4, 5)
    assert row["rate"] == pytest.approx(0.02, rel=0.2)
    assert row["seconds_left"] == pytest.approx(50, rel=0.2)
    assert re.search(r"running  since .*  4 of 5 \(80%\), [\d,]+/s, \d+s left", answer.out)


def test_status_of_what_is_not_batched_shows_no_progress(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    run(declared[0])
    (row,) = Answer("status", "--json").json["routines"]
    shown = [row[key] for key in ("processed", "total", "rate", "seconds_left", "retry_at")]
    assert shown == [None] * 5


def test_status_shows_kind_and_scope(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RELEASE", "2024.1")
    declared += [
        Routine(function=lambda: None, name="in_memory", scope="process"),
        failing_at(using, 4, "fill"),
        seed(using, "send", atomic=False, scope="release"),
        seed(using, "load", scope=content("support.py")),
    ]
    shown = Answer("status", "--json").json["routines"]
    assert [(row["name"], row["kind"], row["scope"]) for row in shown] == [
        ("in_memory", "process", "process"),
        ("fill", "batched", "database"),
        ("send", "external", "release"),
        ("load", "atomic", "content('support.py')"),
    ]


def test_status_of_a_held_routine_says_why_and_what_to_do(
    using: str, declared: list[Routine]
) -> None:
    declared.append(held(using))
    answer = Answer("status")
    state, error, advice = answer.out.splitlines()
    assert re.fullmatch(
        rf"\[ \] shop.held  v1  held  20.* \(pid {os.getpid()}\).*  external", state
    )
    assert error == "      LookupError: no such currency"
    assert f"(pid {os.getpid()}) failed: LookupError: no such currency. Held," in advice
    assert "`manage.py once run --fake shop.held` records it as done" in advice
    assert Answer("status", "--json").json["counts"] == {"held": 1}


def test_status_of_a_routine_without_retry_whose_process_died_is_held(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_LIVENESS_TIMEOUT", "1")  # for so long, `wait` thinks that it may live
    declared.append(seed(using, retry=False))
    begin(declared[0])
    answer = Answer("status", "--check")
    assert answer.code == 5
    assert f"(pid {os.getpid()}) ended without a word. Held, since retry=False" in answer.out
    assert Answer("wait").code == 5


def test_status_shows_the_whole_traceback_where_asked(using: str, declared: list[Routine]) -> None:
    declared.append(failing(using))
    run(declared[0])
    assert "Traceback" not in Answer("status").out
    answer = Answer("status", "-v2")
    assert "      Traceback (most recent call last):\n" in answer.out
    assert answer.out.endswith("      LookupError: no such currency\n")


@pytest.mark.postgresql
def test_error_of_a_database_is_shown_by_its_first_line_everywhere(
    using: str, declared: list[Routine], caplog: pytest.LogCaptureFixture
) -> None:
    declared.append(seed(using, function=lambda: rows(using, "SELECT nme FROM shop_effect")))
    line = r"\w+Error: .*column\W+nme.*"  # below it, PostgreSQL has a caret
    ran = Answer("run")
    assert re.fullmatch(
        rf"shop\.seed failed\. {line} Nothing of its transaction was committed\. .*", ran.message
    )
    shown = Answer("status").out.splitlines()
    assert len(shown) == 2
    assert re.fullmatch(rf"      {line}", shown[1])
    assert re.search(rf'event=finished .* message="{line}"', caplog.messages[-1])
    assert ("LINE 1" in Answer("status", "-v2").out) is (using == "default")


def test_status_of_a_version_that_was_not_tried_is_pending(
    using: str, declared: list[Routine]
) -> None:
    run(failing(using))
    declared.append(failing(using, version=2))
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["state"], row["error"]) == ("pending", None)


def test_status_does_not_date_a_failure_by_an_earlier_completion(
    using: str, declared: list[Routine]
) -> None:
    run(seed(using, "shop.bad"))
    Completion.objects.using(using).update(completed_at=datetime(2001, 6, 15, tzinfo=UTC))
    declared.append(failing(using, version=2))
    run(declared[0])
    line = Answer("status").out.splitlines()[0]
    assert line.startswith("[ ] shop.bad  v2  failed  ")
    assert "2001-06" not in line


def test_check_is_5_where_one_is_held(using: str, declared: list[Routine]) -> None:
    declared += [held(using), seed(using)]
    answer = Answer("status", "--check")
    assert answer.code == 5
    assert answer.message == (
        "Not done: shop.held (held), shop.seed (pending). Next: `manage.py once run`, once a "
        "person has decided about what is held."
    )


def test_status_says_when_starting_servers_try_again(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONCE_RETRY_DELAY", "1000")
    declared.append(failing(using))
    run(declared[0])
    assert "  (starting servers try again at 20" in Answer("status").out
    (row,) = Answer("status", "--json").json["routines"]
    assert row["retry_at"] > row["started_at"]


# history


def test_history_shows_attempts_and_decisions_the_latest_first(
    using: str, declared: list[Routine]
) -> None:
    declared.append(failing(using))
    Answer("run")
    Answer("run", "--fake", "shop.bad", "--reason", "loaded by hand")
    answer = Answer("history", "shop.bad")
    assert (answer.code, answer.err) == (0, "")
    heading, faked, reason, failed, error = answer.out.splitlines()
    assert heading.partition("  in ")[0] == "shop.bad"
    assert re.match(r"   2  fake         v1  20[-\d]{8} ", faked)
    assert faked.endswith(f"  by {getpass.getuser()}")
    assert reason == "      loaded by hand"
    assert re.match(r"   1  failed       v1  20[-\d]{8} .*  in 0\.\d{3}s  on ", failed)
    assert failed.endswith("  by command")
    assert error == "      LookupError: no such currency"
    assert "Traceback" in Answer("history", "shop.bad", "-v2").out


def test_history_json_has_the_keys_of_the_contract(using: str, declared: list[Routine]) -> None:
    declared += [failing(using), seed(using, "shop.new")]
    Answer("run", "shop.bad")
    shown = Answer("history", "shop.*", "--json").json
    bad, new = shown["routines"]
    assert list(shown) == ["schema", "routines"]
    assert (new["name"], new["database"], new["attempts"]) == ("shop.new", using, [])
    [attempt] = bad["attempts"]
    assert (attempt["number"], attempt["state"], attempt["trigger"]) == (1, "failed", "command")
    assert attempt["error"].startswith("LookupError: no such currency\nTraceback")
    assert attempt["started_at"].endswith("Z")
    assert (attempt["total"], attempt["processed"]) == (None, None)


def test_history_of_what_is_in_memory_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(Routine(function=print, name="x", scope="process"))
    answer = Answer("history", "x")
    assert (answer.code, answer.message) == (2, "Nothing is recorded of x.")


def test_history_names_the_database_of_each_of_the_same_name() -> None:
    for using in ("default", "sqlite"):
        call(using)
    out = Answer("history", "prices").out
    assert re.findall(r"^call:.*$", out, re.MULTILINE) == ["call:prices", "call:prices  in sqlite"]


def test_history_of_what_this_code_or_this_database_has_not_any_more(
    declared: list[Routine],
) -> None:
    run(failing("default", "shop.gone"))
    run(seed("sqlite"))
    declared.append(seed("default"))
    assert "no such currency" in Answer("history", "shop.gone").out
    assert "  in sqlite" in Answer("history", "shop.seed", "--database", "sqlite").out
    assert Answer("history", "shop.gone", "--database", "sqlite").code == 2


def test_database_leaves_out_what_others_record(declared: list[Routine]) -> None:
    declared += [seed("default", "a"), seed("sqlite", "b")]
    Answer("run", "b")
    [line] = Answer("status", "--database", "sqlite").out.splitlines()
    assert line.split()[:4] == ["[X]", "b", "v1", "completed"]
    assert line.endswith("  in sqlite")
    assert Answer("wait", "--database", "sqlite", "--timeout", "0").code == 0
    assert Answer("wait", "--database", "default", "--timeout", "0").code == 4
    for subcommand in ("status", "history", "wait"):
        assert Answer(subcommand, "a", "--database", "sqlite").code == 2


def test_wait_json_says_which_migrations_a_name_waits_for(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared.append(seed(using))
    Answer("run")
    monkeypatch.setattr(unapplied, "names", lambda using: ["shop.0002_more"])
    answer = Answer("wait", "shop.seed", "--json", "--timeout", "0")
    assert (answer.code, answer.json["done"]) == (4, False)
    assert answer.json["unapplied"] == {using: ["shop.0002_more"]}


@pytest.mark.parametrize("state", ["done", "held", "pending"])
def test_wait_json_is_one_object_however_it_ends(
    state: str, using: str, declared: list[Routine]
) -> None:
    declared.append(failing(using, retry=False, atomic=False) if state == "held" else seed(using))
    if state != "pending":
        Answer("run")
    answer = Answer("wait", "--timeout", "0", "--json")
    assert answer.code == {"done": 0, "held": 5, "pending": 4}[state]
    assert answer.json["done"] is (state == "done")
    [routine] = answer.json["routines"]
    assert routine["state"] == {"done": "completed"}.get(state, state)


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
    with database(using).lock("b", 15.0) as lock:
        take(lock)
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


def test_wait_ends_at_once_where_one_is_held(using: str, declared: list[Routine]) -> None:
    declared += [seed(using), held(using)]
    answer = Answer("wait")
    assert answer.code == 5
    assert answer.message.startswith("shop.held: Held, since retry=False")


def test_wait_does_not_end_where_what_no_server_runs_is_held(
    using: str, declared: list[Routine]
) -> None:
    declared += [seed(using), failing(using, retry=False, startup=False)]
    run(declared[1])
    answer = Answer("wait", "--timeout", "0.1")
    assert answer.code == 4
    assert "shop.seed is pending" in answer.message
    assert Answer("wait", "shop.bad").code == 5


# reset


def reset(*arguments: str) -> Answer:
    return Answer("reset", "--no-input", *arguments)


def test_reset_goes_into_the_history_with_who_and_why(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    declared.append(seed(using))
    run(declared[0])
    answer = reset("shop.seed", "--reason", "wrong prices")
    assert (answer.code, answer.err) == (0, "")
    assert "  shop.seed... OK (0." in answer.out
    assert answer.out.endswith("  Pending again. Next: `manage.py once run`.\n")
    row = last(using)
    assert (row.state, row.trigger, row.user, row.reason) == (
        "succeeded",
        "reset",
        "ada",
        "wrong prices",
    )
    assert Answer("run").code == 0
    assert effects(using) == ["shop.seed", "shop.seed"]


def test_reset_of_a_pattern_resets_what_ran(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "shop.load_a"), seed(using, "shop.load_b"), seed(using, "shop.seed")]
    run(declared[0], declared[2])
    answer = reset("shop.load_*")
    assert answer.code == 0
    assert "  shop.load_b is pending, so not done: nothing to reset.\n" in answer.out
    assert [name for name, _, _ in attempts(using)] == ["shop.load_a", "shop.load_a", "shop.seed"]


def test_reset_of_what_is_pending_says_so_and_writes_nothing(
    using: str, declared: list[Routine]
) -> None:
    declared.append(seed(using))
    assert reset("shop.seed").out == "  shop.seed is pending, so not done: nothing to reset.\n"
    assert attempts(using) == []


@pytest.mark.parametrize("make", [lambda using: seed(using), held], ids=["completed", "held"])
def test_reset_without_a_terminal_wants_to_be_confirmed(
    using: str,
    declared: list[Routine],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[str], Routine],
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("yes\n"))
    declared.append(make(using))
    run(declared[0])
    before = attempts(using)
    answer = Answer("reset", "shop.*")
    assert answer.code == 2
    assert f"routines run again that ran: {declared[0].name}. Where there is no" in answer.message
    assert "confirm by --noinput" in answer.message
    assert attempts(using) == before


def test_reset_of_a_failed_routine_needs_no_confirmation(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())
    declared.append(failing(using))
    run(declared[0])
    assert Answer("reset", "shop.bad").code == 0
    assert attempts(using) == [("shop.bad", 1, "failed"), ("shop.bad", 2, "succeeded")]


@pytest.mark.parametrize(("said", "code"), [("yes", 0), (" YES ", 0), ("no", 3), ("", 3), ("y", 3)])
def test_reset_in_a_terminal_asks(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt: said)
    declared.append(seed(using))
    run(declared[0])
    answer = Answer("reset", "shop.seed")
    assert answer.code == code
    assert "These ran, or may have run, and will run again:\n  [X] shop.seed  v1" in answer.out
    assert answer.message == ("Nothing was reset." if code else "")
    assert len(attempts(using)) == (1 if code else 2)


@pytest.mark.parametrize("name", ["shop.gone", ""])
def test_reset_of_an_unknown_name_is_a_usage_error(name: str, declared: list[Routine]) -> None:
    call("default")
    declared.append(seed("default"))
    answer = reset(name)
    assert answer.code == 2
    assert answer.message.startswith(f"No routine is named {name!r}")
    assert len(attempts("default")) == 1


def test_reset_of_what_is_in_memory_is_a_usage_error(declared: list[Routine]) -> None:
    declared.append(Routine(function=lambda: None, name="in_memory", scope="process"))
    answer = reset("in_memory")
    assert (answer.code, answer.message) == (
        2,
        "in_memory keeps no record (process scope): restart the process.",
    )


def test_reset_of_what_another_release_knows_more_of_is_a_usage_error(
    using: str, declared: list[Routine]
) -> None:
    run(seed(using, version=2))
    Completion.objects.using(using).create(routine="elsewhere", version=4)
    declared.append(seed(using))
    for name, state in [("shop.seed", "superseded"), ("elsewhere", "unknown")]:
        answer = reset(name)
        assert answer.code == 2
        assert answer.message.startswith(f"{name} is {state}: another release of the code")
    assert Completion.objects.using(using).count() == 2


def test_reset_of_what_runs_is_refused(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with database(using).lock("shop.seed", 15.0) as lock:
        take(lock)
        begin(seed(using))
        answer = reset("shop.seed")
    assert answer.code == 3
    assert f"shop.seed is run now on {last(using).host} (pid {os.getpid()})." in answer.message
    assert attempts(using) == [("shop.seed", 1, "running")]


def test_reset_refuses_all_where_it_refuses_one(using: str, declared: list[Routine]) -> None:
    run(seed(using, "shop.a"), seed(using, "shop.b", version=2))
    declared += [seed(using, "shop.a"), seed(using, "shop.b")]
    assert reset("shop.*").code == 2
    assert len(attempts(using)) == 2


# call


def call(using: str, *options: str, key: str = "prices", arguments: Sequence[str] = ()) -> Answer:
    """Call the command that leaves an effect."""
    command = [key, "leave", "cheap", "--database", using, *arguments]
    return Answer("call", "--database", using, *options, *command)


def test_call_runs_a_command_once(using: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = call(using)
    assert (answer.code, answer.err) == (0, "")
    assert re.fullmatch(
        r"  Running call:prices\.\.\.\n  call:prices\.\.\. OK \(\d\.\d{3}s\)\n", answer.out
    )
    assert capsys.readouterr().out == "Left cheap behind.\n"
    assert call(using).out.startswith("  call:prices is done already: completed 20")
    assert capsys.readouterr().out == ""
    assert effects(using) == ["cheap"]
    assert attempts(using) == [("call:prices", 1, "succeeded")]
    assert last(using).trigger == "call"


def test_call_passes_the_options_behind_the_command_to_it(
    using: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call(using, arguments=["-v0"])
    assert "call:prices... OK" in answer.out
    assert capsys.readouterr().out == ""
    assert effects(using) == ["cheap"]


def test_call_of_another_key_runs_again(using: str) -> None:
    call(using)
    call(using, key="more")
    assert effects(using) == ["cheap", "cheap"]


def test_call_of_a_higher_version_runs_again_and_a_lower_one_does_not(using: str) -> None:
    for version in ("1", "2", "2", "1"):
        assert call(using, "--version", version).code == 0
    assert effects(using) == ["cheap", "cheap"]


def test_call_without_a_transaction_runs_a_command_once(using: str) -> None:
    assert call(using, "--no-atomic").code == 0
    assert "call:prices is done already" in call(using, "--no-atomic").out
    assert effects(using) == ["cheap"]


def test_call_that_fails_is_undone_and_tried_again(using: str) -> None:
    answer = call(using, arguments=["--fail"])
    assert answer.code == 1
    assert answer.message == (
        "call:prices failed. CommandError: There is nothing to leave. Nothing of its "
        "transaction was committed. Fix the cause and run this again."
    )
    brief, whole = Answer("status", "call:prices"), Answer("status", "-v2", "prices")
    assert brief.out.splitlines()[1] == "      CommandError: There is nothing to leave."
    assert whole.out.splitlines()[1:3] == [
        brief.out.splitlines()[1],
        "      Traceback (most recent call last):",
    ]
    assert "Traceback (most recent call last)" in answer.err
    assert effects(using) == []
    assert call(using).code == 0
    assert attempts(using) == [("call:prices", 1, "failed"), ("call:prices", 2, "succeeded")]


def test_call_that_fails_without_a_transaction_leaves_what_it_did(using: str) -> None:
    assert call(using, "--no-atomic", arguments=["--fail"]).code == 1
    assert effects(using) == ["cheap"]
    assert attempts(using) == [("call:prices", 1, "failed")]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["gone"], "Unknown command: 'gone'. `manage.py help` lists those that there are."),
        (["leave"], "leave: the following arguments are required: name"),
        (["leave", "x", "--prize", "3"], "leave: unrecognized arguments: --prize 3"),
        (["leave", "x", "-v", "high"], "leave: argument -v/--verbosity: invalid int value"),
    ],
)
def test_call_of_what_cannot_be_called_is_a_usage_error_and_leaves_no_record(
    using: str, command: list[str], words: str
) -> None:
    answer = Answer("call", "--database", using, "prices", *command)
    assert answer.code == 2
    assert words in answer.message
    assert attempts(using) == []


@pytest.mark.parametrize(
    "swallowed",
    [
        ["--version", "2"],
        ["--version"],
        ["--vers"],
        ["--help"],
        ["-h"],
        ["--about"],
        ["--settings", "gone.settings"],
        ["--pythonpath=/gone"],
    ],
    ids=" ".join,
)
def test_call_with_an_argument_that_keeps_the_command_from_running_is_a_usage_error(
    swallowed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Answer("call", "prices", "leave", "x", *swallowed)
    assert answer.code == 2
    assert "before KEY" in answer.message
    assert capsys.readouterr().out == ""
    assert attempts("default") == []


def test_call_with_the_settings_that_are_in_use_runs_the_command(using: str) -> None:
    settings = ["--settings", os.environ["DJANGO_SETTINGS_MODULE"], "--pythonpath", sys.path[0]]
    assert call(using, arguments=settings).code == 0
    assert effects(using) == ["cheap"]


def test_call_leaves_two_dashes_to_the_command(using: str) -> None:
    arguments = ["leave", "--database", using, "--", "--help"]
    assert Answer("call", "--database", using, "prices", *arguments).code == 0
    assert Answer("call", "--database", using, "--", "more", *arguments).code == 0
    assert effects(using) == ["--help", "--help"]
    assert Answer("call", "most", "leave", "--", "--fail").code == 0
    assert "--fail" in effects("default")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["a b"], "argument KEY: 'a b' is no KEY. It may have 195 letters, digits and any of"),
        ([""], "argument KEY: '' is no KEY. Is a variable unset?"),
        (["x" * 196], "is no KEY. It may have 195 letters"),
        (["--version", "0", "prices"], "argument --version: '0' is no version. Count them 1, 2"),
        (["--version", "two", "prices"], "argument --version: 'two' is no version."),
    ],
)
def test_call_under_an_impossible_key_is_a_usage_error(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "once", "call", *options, "check"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert attempts("default") == []


def test_call_records_and_tells_no_argument(using: str, caplog: pytest.LogCaptureFixture) -> None:
    call(using, arguments=["--password", "secret"])
    bad = call(using, key="bad", arguments=["--password", "secret", "--fail"])
    assert bad.code == 1
    assert "event=finished routine=call:bad" in caplog.text
    kept = [model.objects.using(using).values() for model in (Attempt, Anchor, Completion)]
    told = str([list(rows) for rows in kept]) + caplog.text + bad.out + bad.err + bad.message
    assert "There is nothing to leave." in told
    assert "cheap" not in told
    assert "secret" not in told
    assert "--password" not in told


def test_call_json_keeps_the_commands_output_off_stdout(
    using: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call(using, "--json")
    streams = capsys.readouterr()
    assert (streams.out, streams.err) == ("", "Left cheap behind.\n")
    assert answer.code == 0
    shown = answer.json
    assert (shown["schema"], shown["done"]) == (1, True)
    (row,) = shown["routines"]
    assert list(row) == [*KEYS, "outcome"]
    assert (row["name"], row["kind"], row["state"]) == ("call:prices", "call", "completed")
    assert (row["version"], row["recorded_version"], row["outcome"]) == (1, 1, "ran")
    assert (row["processed"], row["total"]) == (None, None)
    assert call(using, "--json").json["routines"][0]["outcome"] == "already_done"


def test_call_json_of_a_failure_exits_1(using: str) -> None:
    answer = call(using, "--json", arguments=["--fail"])
    assert (answer.code, answer.json["done"]) == (1, False)
    (row,) = answer.json["routines"]
    assert (row["state"], row["outcome"], row["version"]) == ("failed", "failed", 1)
    assert row["error"].endswith("CommandError: There is nothing to leave.\n")


def test_call_that_another_process_runs_is_left_out_without_wait(using: str) -> None:
    with database(using).lock("call:prices", 15.0) as lock:
        take(lock)
        answer = call(using, "--no-wait")
        late = call(using, "--timeout", "0")
    assert (answer.code, late.code) == (3, 4)
    assert "call:prices is run by" in answer.message
    assert effects(using) == []


def test_status_shows_what_was_called_and_does_not_wait_for_it(using: str) -> None:
    call(using, "--version", "3")
    call(using, key="bad", arguments=["--fail"])
    answer = Answer("status", "--check")
    assert answer.code == 0
    assert "[ ] call:bad     v1  failed" in answer.out
    assert "      CommandError: There is nothing to leave.\n" in answer.out
    assert "[X] call:prices  v3  completed" in answer.out


@pytest.mark.parametrize("name", ["call:prices", "prices"])
def test_reset_of_what_was_called_has_it_called_again(using: str, name: str) -> None:
    call(using)
    answer = reset(name)
    assert answer.code == 0
    assert answer.out.endswith("Next: call it again by `manage.py once call`.\n")
    assert last(using).trigger == "reset"
    assert call(using).code == 0
    assert effects(using) == ["cheap", "cheap"]


def test_call_after_a_reset_is_of_that_version_and_under_a_key_of_its_own(using: str) -> None:
    for version in ("1", "2"):
        assert call(using, "--version", version).code == 0
    assert reset("prices").code == 0
    (row,) = Answer("status", "--json").json["routines"]
    assert (row["version"], row["recorded_version"], row["state"]) == (2, 1, "pending")
    assert "call:prices: A newer version is recorded, or was begun" in call(using).out
    assert call(using, "--version", "2").code == 0
    assert effects(using) == ["cheap"] * 3
    rows = Attempt.objects.using(using).order_by("number").values_list("key", flat=True)
    first, second, decision, third = rows
    assert len({first, second, decision}) == 3
    assert third == decision


def test_key_is_one_of_each_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sqlite", "--json").json["routines"][0]["database"] == "sqlite"
    answer = call("default", "--json", arguments=["--fail"])
    assert [row["database"] for row in answer.json["routines"]] == ["default"]
    assert (effects("default"), effects("sqlite")) == ([], ["cheap"])
    shown = Answer("status", "--json").json["routines"]
    assert [(row["name"], row["database"], row["state"]) for row in shown] == [
        ("call:prices", "default", "failed"),
        ("call:prices", "sqlite", "completed"),
    ]


def test_reset_of_a_key_of_two_databases_wants_one_of_them() -> None:
    for using in ("default", "sqlite"):
        call(using)
    call("default", key="other")
    unclear, elsewhere = reset("prices"), reset("other", "--database", "sqlite")
    assert (unclear.code, elsewhere.code) == (2, 2)
    assert unclear.message == (
        "call:prices is recorded in several databases: default, sqlite. Name one by --database."
    )
    assert "'other'" in elsewhere.message
    assert reset("prices", "--database", "sqlite").code == 0
    left = [Completion.objects.using(using).count() for using in ("default", "sqlite")]
    assert left == [2, 0]


def test_call_of_a_run_is_refused(using: str, declared: list[Routine]) -> None:
    """Its record could be undone by the transaction around it."""
    declared.append(seed(using))
    answer = Answer("call", "--database", using, "everything", "once", "run")
    assert answer.code == 1
    assert "inside a transaction of database" in answer.message
    assert effects(using) == []


def test_foreign_text_reaches_no_terminal_as_it_is(
    using: str, declared: list[Routine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "web\n[X] \x1b]52;c;aGk=\x07")

    def body() -> None:
        raise LookupError("\x1b[2Jgone\rOK")

    declared.append(seed(using, function=body))
    ran, shown, whole = Answer("run"), Answer("status"), Answer("status", "-v2")
    assert r"LookupError: \x1b[2Jgone\rOK" in ran.err
    assert len(shown.out.splitlines()) == 2
    assert r"on web\n[X] \x1b]52;c;aGk=\x07 (pid" in shown.out
    Attempt.objects.using(using).update(routine="call:\x1b[31mred\n[X] forged")
    decided = [Answer(subcommand, "call:*").out for subcommand in ("history", "reset")]
    for text in (ran.out, ran.err, shown.out, whole.out, *decided):
        assert text.replace("\n", "").isprintable()
        assert "\n[X] forged" not in text
