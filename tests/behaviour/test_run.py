"""``once run``: what it does, prints and ends with."""

import getpass
import os
import re
import signal
from argparse import Namespace

import pytest
from django.core.management import call_command
from django.db import connections, transaction

from once import Routine, state
from once.cli import run as subcommand
from once.databases import database
from once.exceptions import UnknownRoutine
from once.management.commands.once import Command
from once.routines.registry import match
from once.status import reading
from tests.behaviour.command import KEYS, Answer, Terminal, failing, failing_at, held, reset
from tests.support import attempts, effects, lacking_migrations, last, rows, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


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


def test_blocked_routine_says_the_next_step(using: str, declared: list[Routine]) -> None:
    declared.append(seed(using))
    with lacking_migrations(using) as names:
        answer = Answer("run")
    assert answer.code == 3
    assert f"lacks migrations of this code ({names[0]})" in answer.message
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
    monkeypatch.setattr(subcommand, "handle", lambda *given: got.append(given[-1]))
    Answer(*arguments)
    assert (got[0].traceback, got[0].verbosity) == (True, 1)


def test_run_reports_a_hook_that_failed_and_is_done(using: str, declared: list[Routine]) -> None:
    def fail() -> None:
        raise LookupError("no mail server")

    declared.append(seed(using, function=lambda: transaction.on_commit(fail, using=using)))
    answer = Answer("run")
    assert answer.code == 0
    assert "Done and recorded, but afterwards: LookupError: no mail server" in answer.out


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


@pytest.mark.parametrize("days", ["-5", "1.5", "99999999999", "long"])
def test_prune_takes_a_number_of_days(days: str) -> None:
    answer = Answer("prune", f"--older-than={days}")
    assert answer.message == (
        f"Error: argument --older-than: '{days}' is no number of days. Pass a whole number from 0 "
        "to 36500"
    )


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
    assert answer.message.startswith("--reason says why routines are recorded by --fake, or reset")
    assert attempts(using) == []


def test_fake_is_done_for_the_run_that_follows(using: str, declared: list[Routine]) -> None:
    declared += [seed(using, "a"), seed(using, "b", after=["a"]), failing(using)]
    run(declared[2])
    fake = ("run", "--fake", "b", "shop.bad")
    assert Answer(*fake).code == 0
    told = rf"  shop\.bad is done already: 20[^,]*, faked by {getpass.getuser()}\. To have it run"
    assert re.search(told, Answer(*fake).out)
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
    assert answer.message.startswith("None of these routines is in database 'sqlite'.")


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
    assert "argument --database: 'gone' is not in DATABASES. Name one of default, sqlite" in (
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["shop.seed"], "--revert is for routines with scope=state(...)"),
        (["--plan"], "--plan runs nothing. Leave out --revert."),
    ],
)
def test_needless_revert_is_a_usage_error(
    using: str, declared: list[Routine], options: list[str], words: str
) -> None:
    declared.append(seed(using))
    answer = Answer("run", "--revert", *options)
    assert answer.code == 2
    assert answer.message.startswith(words)
    assert attempts(using) == []
    assert Answer("run", "--revert").code == 0  # a job of each deploy may say so


def test_earlier_value_is_told_and_counts_as_done(using: str, declared: list[Routine]) -> None:
    releases = [seed(using, scope=state(value)) for value in (lambda: "a", lambda: "b")]
    for routine in releases:
        declared[:] = [routine]
        assert Answer("run").code == 0
    declared[:] = releases[:1]
    for answer in (Answer("run"), Answer("run", "shop.seed"), Answer("status")):
        assert answer.code == 0
        assert "`manage.py once run --revert shop.seed` brings this value back." in answer.out
    assert Answer("status", "--check").code == 0
    for refused in (
        Answer("reset", "shop.seed", "--noinput"),
        Answer("run", "--fake", "shop.seed"),
    ):
        assert "once run --revert shop.seed" in refused.message + refused.out
    answer = Answer("run", "--revert", "--json")
    assert [row["outcome"] for row in answer.json["routines"]] == ["ran"]
    assert [row["state"] for row in answer.json["routines"]] == ["completed"]
