"""``once call``: what it does, prints and ends with."""

import os
import re
import sys

import pytest

from once import Routine
from once.databases import database
from once.management.commands.once import Command
from once.models import Anchor, Attempt, Completion
from tests.behaviour.command import KEYS, Answer, call, reset
from tests.support import attempts, effects, last, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


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


@pytest.mark.parametrize("options", [["--database", "sqlite"], []], ids=["own", "default"])
def test_call_whose_effects_and_record_would_be_in_two_databases_is_a_usage_error(
    options: list[str],
) -> None:
    given = ["prices", "leave", "cheap", *options]
    using = "default" if options else "sqlite"
    there = "sqlite" if options else "default"
    answer = Answer("call", "--database", using, *given)
    assert answer.code == 2
    assert f"leave: its effects would be in database {there!r}, and the record" in answer.message
    assert f"Pass --database {there} before KEY" in answer.message
    assert effects(there) == []
    assert attempts(using) == []
    assert Answer("call", "--database", using, "--no-atomic", *given).code == 0
    assert effects(there) == ["cheap"]
    assert attempts(using) == [("call:prices", 1, "succeeded")]


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
        (["--version", "0", "prices"], "argument --version: '0' is no version. Pass a whole n"),
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
    assert "call:prices is done already" in call(using).out
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
    decided = [Answer(subcommand, "call:*") for subcommand in ("status", "history", "reset")]
    assert [answer.code for answer in decided] == [0, 0, 0]
    for text in (ran.out, ran.err, shown.out, whole.out, *(answer.out for answer in decided)):
        assert text.replace("\n", "").isprintable()
        assert "\n[X] forged" not in text
