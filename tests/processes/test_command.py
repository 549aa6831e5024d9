"""``manage.py once`` as people and programs meet it: exit codes, streams, text and JSON."""

import itertools
import json
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from fcntl import ioctl
from typing import Any
from unicodedata import east_asian_width

import pytest

from tests.behaviour.command import KEYS
from tests.project import ROOT, Forked, Project
from tests.zygote import is_forkable

pytestmark = pytest.mark.django_db(databases=[])

_count = itertools.count(1)

on_both = pytest.mark.parametrize("kind", ["postgresql", "sqlite"])

SUBCOMMANDS = ("run", "status", "wait", "call", "reset", "doctor")

#: Two that belong together, and one that stands alone.
SHOP = """
    @routine
    def first():
        effect("first")

    @routine(after=[first])
    def second():
        effect("second")

    @routine
    def third():
        effect("third")
"""

#: Fails as long as the test says so.
FRAIL = """
    @routine{options}
    def frail({parameters}):
        effect({effect})
        if "FAIL" in os.environ:
            raise LookupError("no such currency")
"""

#: Ten items in batches of three; holds, or fails, at the third batch.
BATCHED = """
    @routine(over=lambda: range(10), batch_size=3)
    def many(batch):
        effect(f"batch {batch[0]}")
        if 6 in batch and "HOLD" in os.environ:
            hold("third")
        if 6 in batch and "FAIL" in os.environ:
            raise LookupError("no such item")
"""

SLOW = """
    @routine
    def slow():
        effect("slow")
        hold("slow")
"""

#: Beside the default one, a routine of another database.
ELSEWHERE = """
    @routine(using="sqlite")
    def elsewhere(run):
        Effect.objects.using(run.using).create(name="elsewhere")
"""

MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    operations = [migrations.RunPython(lambda apps, editor: None)]
"""


@dataclass(frozen=True)
class Answer:
    """What a call of the command gave."""

    code: int
    out: str
    err: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, with nothing before it and nothing after."""
        shown: dict[str, Any] = json.loads(self.out)
        of_status = ["unapplied", "unread"] if "unapplied" in shown else []
        assert list(shown) == ["schema", "done", "counts", *of_status, "routines"]
        assert shown["schema"] == 1
        return shown

    @property
    def outcomes(self) -> dict[str, str]:
        return {row["name"]: row["outcome"] for row in self.json["routines"]}

    @property
    def states(self) -> dict[str, str]:
        return {row["name"]: row["state"] for row in self.json["routines"]}


@pytest.fixture
def kind() -> str:
    return "postgresql"


@pytest.fixture
def project(project: Project) -> Project:
    # As most projects do it: nothing is said of the logger "once", so that stderr is the command's.
    source = "from tests.settings import *\n\nLOGGING = {}\n"
    (project.directory / "quiet.py").write_text(source)
    project.environment["DJANGO_SETTINGS_MODULE"] = "quiet"
    # Development mode without its allocator, which takes a quarter of each of the many starts.
    project.environment["PYTHONMALLOC"] = "pymalloc"
    return project


def second_rows(project: Project, sql: str) -> list[tuple[Any, ...]]:
    """What the second database holds."""
    second = project.directory / "second.sqlite3"
    with closing(sqlite3.connect(second, timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.manage", "once", *arguments]


def once(project: Project, *arguments: str, **environment: str) -> Answer:
    """Call the command with no terminal anywhere, and see each of its streams."""
    whole = {**project.environment, **environment}
    out = project.directory / f"once-{next(_count)}.out"
    err = out.with_suffix(".err")
    if is_forkable(["once", *arguments], whole):
        code = Forked(["once", *arguments], whole, out, err).finish()
    else:
        with out.open("w") as stdout, err.open("w") as stderr:
            code = subprocess.run(
                command_line(*arguments),
                cwd=ROOT,
                env=whole,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=60,
            ).returncode
    assert "ResourceWarning" not in err.read_text(), err.read_text()
    return Answer(code, out.read_text(), err.read_text())


def together(project: Project, *calls: str | Sequence[str]) -> list[Answer]:
    """Call it in several ways that do not touch each other, a string at its spaces."""
    split = [call.split() if isinstance(call, str) else call for call in calls]
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda call: once(project, *call), split))


def at_terminal(project: Project, *arguments: str, types: str = "", columns: int = 100) -> Answer:
    """Call it at a terminal, on which everything appears."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.write(ours, types.encode())
    seen = b""
    with subprocess.Popen(
        command_line(*arguments),
        cwd=ROOT,
        env={**project.environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        while select.select([ours], [], [], 60)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # nobody has the other end open any more
                break
        else:
            process.kill()
    os.close(ours)
    return Answer(process.returncode, seen.decode().replace("\r\n", "\n"))


def everything(project: Project) -> str:
    """All that the database holds, as text."""
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    if project.is_sqlite:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
    found = []
    for (table,) in sorted(project.rows(tables)):
        found += [table, *sorted(map(str, project.rows(f'SELECT * FROM "{table}"')))]
    return "\n".join(found)


def history(project: Project) -> list[tuple[str, str, str, str]]:
    """What called, who decided, why, and how it ended, attempt by attempt."""
    columns = '"trigger", "user", reason, state'
    return [*project.rows(f"SELECT {columns} FROM once_attempt ORDER BY routine, number")]


def keys(project: Project, routine: str) -> list[str]:
    """The idempotency key of each attempt at a routine."""
    where = f"WHERE routine = '{routine}' ORDER BY number"
    return [key for (key,) in project.rows(f"SELECT key FROM once_attempt {where}")]


def frail(effect: str = '"frail"', options: str = "", parameters: str = "") -> str:
    return FRAIL.format(effect=effect, options=options, parameters=parameters)


# run


@on_both
def test_run_runs_what_is_pending_and_then_nothing(project: Project) -> None:
    project.routines(SHOP)
    answer = once(project, "run")
    assert (answer.code, answer.err) == (0, "")
    line = r"  Running plant\.{0}\.\.\.\n  plant\.{0}\.\.\. OK \(\d\.\d{{3}}s\)\n"
    wanted = "".join(line.format(name) for name in ("first", "second", "third"))
    assert re.fullmatch(wanted, answer.out), answer.out
    assert once(project, "run") == Answer(0, "  No routines to run.\n")
    assert project.effects() == ["first", "second", "third"]
    assert project.completions() == ["plant.first", "plant.second", "plant.third"]
    assert history(project) == [("command", "", "", "succeeded")] * 3


def test_run_of_names_labels_and_patterns(project: Project) -> None:
    project.routines(SHOP + '\n\n    @routine(scope="process")\n    def warm(): ...\n')
    assert once(project, "run", "plant.second").code == 0
    assert project.effects() == ["first", "second"]
    assert once(project, "run", "plant.t*").code == 0
    assert project.effects() == ["first", "second", "third"]
    by_label = once(project, "run", "plant", "--json")
    assert set(by_label.outcomes) == {"plant.first", "plant.second", "plant.third"}
    both, unknown, in_memory = together(
        project, "run plant.f* plant.third --json", "run plant.third plant.gone", "run plant.warm"
    )
    assert list(both.outcomes.items()) == [
        ("plant.first", "already_done"),
        ("plant.third", "already_done"),
    ]
    assert unknown == Answer(
        2,
        "",
        "CommandError: No routine is named 'plant.gone', and no app with routines. "
        "Routines here: plant.first, plant.second, plant.third, plant.warm.\n",
    )
    assert (in_memory.code, in_memory.out) == (2, "")
    assert "plant.warm runs in every process by itself" in in_memory.err


def test_json_is_all_there_is_on_stdout_where_a_body_prints(project: Project) -> None:
    project.routines(
        """
        @routine
        def first():
            print("Loading...")
        """
    )
    answer = once(project, "run", "--json")
    assert answer.code == 0
    assert answer.outcomes == {"plant.first": "ran"}


@on_both
def test_what_another_process_runs(project: Project) -> None:
    project.routines(SLOW + SHOP)
    holder = project.once("run")
    project.wait_for("slow")
    place = rf"{os.uname().nodename} \(pid {holder.pid}\)"
    who = rf"plant\.slow is run by {place}( for \d+ s)?(, as of \d+ s ago)?"
    no_wait, as_json, late, reset = together(
        project,
        "run plant.slow --no-wait",
        "run plant.slow --no-wait --json",
        "run plant.slow --timeout 2",
        "reset plant.slow --no-input",
    )
    assert (no_wait.code, no_wait.out) == (3, "")
    assert re.fullmatch(
        rf"CommandError: Not everything is done\.\n  plant\.slow: {who}\n"
        r"Run this without --no-wait to wait for other processes\.\n",
        no_wait.err,
    )
    assert (as_json.code, as_json.outcomes) == (3, {"plant.slow": "skipped"})
    assert as_json.states == {"plant.slow": "running"}
    assert late.code == 4
    assert re.fullmatch(rf"(  Waiting for \d+\.\ds: {who}\n)+", late.out), late.out
    assert re.search(rf": Gave up after \d+\.\d s: {who}\. Run this again", late.err)
    assert (reset.code, reset.out) == (3, "")
    assert f"plant.slow is run now on {os.uname().nodename} (pid {holder.pid})." in reset.err
    waiter = project.once("run", "plant.slow", "--json")
    waiter.wait_for("Waiting for ")
    project.release("slow")
    assert [holder.finish(), waiter.finish()] == [0, 0]
    shown = json.loads(waiter.output[waiter.output.index("{\n") :])
    assert [row["outcome"] for row in shown["routines"]] == ["waited"]
    assert "  Waited for plant.slow... done by another process (" in waiter.output
    assert project.effects() == ["first", "second", "slow", "third"]
    assert len(project.attempts()) == 4


def test_done_routine_is_already_done_where_another_database_has_no_tables(
    project: Project,
) -> None:
    project.routines(SHOP + ELSEWHERE)
    assert once(project, "run", "--database", "default").code == 0
    answer = once(project, "run", "--json")
    assert answer.code == 3
    assert [*answer.outcomes.values()] == ["already_done"] * 3 + ["skipped"]


@pytest.mark.parametrize("is_migrated", [False])
def test_migrate_on_empty_databases(project: Project) -> None:
    project.routines(SHOP + ELSEWHERE)
    run, status, check, call, fake, wait = together(
        project,
        "run plant.first",
        "status plant.first",
        "status --check",
        "call key leave effect",
        "run --fake plant.first",
        "wait --timeout 0",
    )
    assert [answer.code for answer in (run, status, check, call, fake, wait)] == [3, 0, 3, 3, 3, 4]
    blocked = (
        "Blocked: database 'default' lacks migrations of this code (contenttypes.0001_initial, "
    )
    assert f"\n  plant.first: {blocked}" in run.err
    assert f"\n  plant.first: {blocked}" in fake.err
    assert f"\n  call:key: {blocked}" in call.err
    assert "Run `manage.py once run --migrate`" in run.err
    assert status.out.splitlines() == [
        "[ ] plant.first  v1  blocked",
        "      The tables of once are missing. Run `manage.py once run --migrate`.",
        status.out.splitlines()[-1],
    ]
    assert blocked.removeprefix("Blocked: d") in status.out
    assert "plant.first (blocked)" in check.err
    answer = once(project, "run", "--migrate", "--json")
    assert answer.code == 0
    assert [*answer.outcomes.values()] == ["ran"] * 4
    assert answer.err.count("  Applying shop.0001_initial... OK\n") == 2
    assert project.effects() == ["first", "second", "third"]
    assert second_rows(project, "SELECT name FROM shop_effect") == [("elsewhere",)]


@pytest.mark.parametrize("is_migrated", [False])
def test_no_wait_does_not_wait_for_who_migrates(project: Project) -> None:
    project.routines(SHOP)
    hold_at = "django.core.management.commands.migrate:emit_post_migrate_signal=migrated"
    holder = project.once("run", "--migrate", TEST_HOLD=hold_at)
    project.wait_for("migrated")
    answer = once(project, "run", "--migrate", "--no-wait", "--timeout", "5")
    project.release("migrated")
    assert holder.finish() == 0
    assert answer.code == 3
    assert f"(pid {holder.pid})" in answer.err


def test_unapplied_migrations_block_what_is_not_done(project: Project) -> None:
    project.routines(SHOP)
    assert once(project, "run", "plant.first").code == 0
    migrations = project.directory / "plant" / "migrations"
    migrations.mkdir()
    (migrations / "__init__.py").touch()
    (migrations / "0001_more.py").write_text(MIGRATION)
    run, status = together(project, "run --json", "status")
    assert run.code == 3
    assert [*run.outcomes.values()] == ["already_done", "skipped", "skipped"]
    assert [*run.states.values()] == ["completed", "blocked", "blocked"]
    advice = "Unapplied migrations: plant.0001_more. Run `manage.py once run --migrate`."
    assert run.json["routines"][1]["message"] == advice
    assert "plant.second: Blocked: database 'default' lacks migrations of this code" in run.err
    assert "(plant.0001_more). Run `manage.py once run --migrate`" in run.err
    assert f"      {advice}" in status.out.splitlines()
    text = once(project, "run", "--migrate")
    assert (text.code, text.err) == (0, "")
    assert text.out.index("Applying plant.0001_more... OK") < text.out.index("Running plant.second")
    assert project.effects() == ["first", "second", "third"]


# status


@on_both
def test_status_of_every_state(project: Project) -> None:
    earlier = (
        """
    @routine
    def gone(): ...

    @routine(version=2)
    def old(): ...
        """
        + frail(options="(retry=False)")
        + frail().replace("frail", "bad")
    )
    now = (
        """
    @routine(scope="process")
    def warm(): ...

    @routine
    def old(): ...
        """
        + frail(options="(retry=False)")
        + frail().replace("frail", "bad")
        + BATCHED
        + SHOP
        + ELSEWHERE
    )
    project.routines(earlier)
    assert once(project, "run", "--keep-going", FAIL="1").code == 1
    project.routines(now)
    assert once(project, "run", "plant.first").code == 0
    holder = project.once("run", "plant.many", HOLD="1")
    project.wait_for("third")
    as_json, text, settled, pending = together(
        project,
        "status --check --json",
        "status",
        "status --check --json plant.g* plant.old plant.first plant.warm",
        "status --check plant.second",
    )
    assert as_json.code == 5
    assert "plant.frail (held), plant.bad (failed), plant.many (running)" in as_json.err
    assert "once a person has decided" in as_json.err
    assert list(as_json.states.items()) == [
        ("plant.warm", "completed"),
        ("plant.old", "superseded"),
        ("plant.frail", "held"),
        ("plant.bad", "failed"),
        ("plant.many", "running"),
        ("plant.first", "completed"),
        ("plant.second", "pending"),
        ("plant.third", "pending"),
        ("plant.elsewhere", "blocked"),
        ("plant.gone", "unknown"),
    ]
    assert as_json.json["done"] is False
    assert as_json.json["counts"] == {
        "completed": 2,
        "superseded": 1,
        "held": 1,
        "failed": 1,
        "running": 1,
        "pending": 2,
        "blocked": 1,
        "unknown": 1,
    }
    assert [list(row) for row in as_json.json["routines"]] == [KEYS] * 10
    warm, old, held, bad, many, _, second, third, elsewhere, gone = as_json.json["routines"]
    assert (warm["kind"], warm["scope"], warm["database"]) == ("process", "process", None)
    assert (old["version"], old["recorded_version"]) == (1, 2)
    for row in (held, bad):
        assert row["error"].startswith("LookupError: no such currency\nTraceback (most")
        assert row["error"].endswith("\nLookupError: no such currency\n")
    assert re.match(
        r"Attempt 1 on .+ \(pid \d+\) failed: LookupError: no such currency\. Held, since "
        r"retry=False: .+ `manage\.py once reset plant\.frail` .+ "
        r"`manage\.py once run --fake plant\.frail` ",
        held["message"],
    )
    assert bad["retry_at"] > bad["started_at"]
    assert (many["host"], many["pid"]) == (os.uname().nodename, holder.pid)
    assert second["message"].startswith("plant.second, plant.third are new and would run, while")
    assert third["message"] == "Like plant.second, it may have run as plant.gone."
    for row in (second, third):
        given = ["message", "scope_key", "failed_items", "paused", "wanted", "has_worker"]
        given.append("old_names")
        assert {row[key] for key in KEYS[9:] if key not in given} == {None}
    assert elsewhere["database"] == "sqlite"
    assert (gone["version"], gone["recorded_version"], gone["scope"]) == (None, 1, None)

    moment = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \w+"
    lines = (
        r"\[X\] plant\.warm       v1  completed",
        rf"\[ \] plant\.old        v1  superseded  {moment}  .*\(v2 is recorded\)",
        rf"\[ \] plant\.frail      v1  held  {moment} on .+ \(pid \d+\)",
        r"      LookupError: no such currency",
        f"      {re.escape(held['message'])}",
        rf"\[ \] plant\.bad        v1  failed  {moment} on .+ \(pid \d+\)  "
        rf"\(no server or worker tries again before {moment}\)",
        r"      LookupError: no such currency",
        rf"\[ \] plant\.many       v1  running  since {moment} on .+ \(pid {holder.pid}\)  "
        r"batched  6 of .+",
        rf"\[X\] plant\.first      v1  completed  {moment}  in \d\.\d\d\ds on .+",
        r"\[ \] plant\.second     v1  pending",
        f"      {re.escape(second['message'])}",
        r"\[ \] plant\.third      v1  pending",
        f"      {re.escape(third['message'])}",
        r"\[ \] plant\.elsewhere  v1  blocked  in sqlite",
        r"      The tables of once are missing\. Run `manage\.py once run --migrate`\.",
        rf"\[ \] plant\.gone       v1  unknown  {moment}  in .+",
        r"      Not in this code\. .+ `manage\.py once forget plant\.gone` removes that\.",
        r"Database 'sqlite' lacks migrations of this code \(.+\)\. Run `manage\.py once run .+`\.",
    )
    assert text.code == 0
    assert len(text.out.splitlines()) == len(lines), text.out
    for line, wanted in zip(text.out.splitlines(), lines, strict=True):
        assert re.fullmatch(wanted, line), (wanted, line)

    assert pending.code == 3
    assert pending.err == (
        "CommandError: Not done: plant.second (pending). Next: `manage.py once run`.\n"
    )
    assert (settled.code, settled.err) == (0, "")
    assert (settled.json["done"], settled.json["counts"]) == (
        True,
        {"completed": 2, "superseded": 1, "unknown": 1},
    )
    assert [*settled.states] == ["plant.warm", "plant.old", "plant.first", "plant.gone"]
    project.release("third")
    assert holder.finish() == 0


# wait


def test_wait_ends_where_a_routine_comes_to_be_held(project: Project) -> None:
    project.routines(
        """
        @routine(atomic=False, retry=False)
        def announce():
            effect("announced")
            hold("announce")
            raise LookupError("no answer")
        """
    )
    holder = project.once("run")
    project.wait_for("announce")
    waiter = project.once("wait", "plant")
    waiter.wait_for(f"plant.announce is running on {os.uname().nodename} (pid {holder.pid})")
    project.release("announce")
    assert [holder.finish(), waiter.finish()] == [1, 5]
    assert "plant.announce: Held, since retry=False" in waiter.output
    assert project.effects() == ["announced"]
    assert project.attempts() == [("plant.announce", 1, "failed")]


# call


@on_both
def test_call_from_eight_processes_runs_once(project: Project) -> None:
    call = ("call", "prices-2026", "leave", "prices", "--hold", "called")
    processes = [project.once(*call) for _ in range(8)]
    project.wait_for("called")
    (holder,) = project.reached("called")
    who = f"call:prices-2026 is run by {os.uname().nodename} (pid {holder})"
    for process in processes:
        if process.pid != holder:
            process.wait_for(who)
    assert project.effects() == []  # effect and record come together
    no_wait = once(project, "call", "--no-wait", "--json", "prices-2026", "leave", "prices")
    assert (no_wait.code, no_wait.outcomes) == (3, {"call:prices-2026": "skipped"})
    assert who in no_wait.err
    (row,) = no_wait.json["routines"]
    assert (row["state"], row["kind"], row["pid"]) == ("running", "call", holder)
    project.release("called")
    assert [process.finish() for process in processes] == [0] * 8
    assert project.effects() == ["prices"]
    assert project.attempts() == [("call:prices-2026", 1, "succeeded")]
    assert project.completions() == ["call:prices-2026"]
    assert project.reached("called") == [holder]


def test_call_shows_the_output_of_the_command(project: Project) -> None:
    text = once(project, "call", "text", "leave", "first")
    assert (text.code, text.err) == (0, "")
    assert re.fullmatch(
        r"  Running call:text\.\.\.\nLeft first behind\.\n  call:text\.\.\. OK \(.+\)\n", text.out
    )
    again = once(project, "call", "text", "leave", "first")
    assert "  call:text is done already" in again.out
    as_json = once(project, "call", "--json", "json", "leave", "second")
    assert (as_json.code, as_json.outcomes) == (0, {"call:json": "ran"})
    (row,) = as_json.json["routines"]
    assert list(row) == [*KEYS, "outcome"]
    assert (row["state"], row["kind"], row["version"], row["attempts"]) == (
        "completed",
        "call",
        1,
        1,
    )
    assert "Left second behind.\n" in as_json.err
    status, names = together(project, "status", "status call:t* --json")
    assert [line.split()[:4] for line in status.out.splitlines()] == [
        ["[X]", "call:json", "v1", "completed"],
        ["[X]", "call:text", "v1", "completed"],
    ]
    assert (names.states, names.json["done"]) == ({"call:text": "completed"}, True)


def test_call_leaves_the_options_after_the_command_to_it(project: Project) -> None:
    project.routines("")
    fixture = project.directory / "effects.json"
    row = {"model": "shop.effect", "pk": 1, "fields": {"name": "loaded", "gone": 1}}
    fixture.write_text(json.dumps([row]))
    load = ("call", "-v", "0", "load", "loaddata", str(fixture))
    strict = once(project, *load)
    assert strict.code == 1
    assert "Effect has no field named 'gone'" in strict.err
    lenient = once(project, *load, "--ignorenonexistent", "-v", "2")
    assert (lenient.code, lenient.out.splitlines()[-1]) == (
        0,
        "Installed 1 object(s) from 1 fixture(s)",
    )
    assert project.effects() == ["loaded"]
    attempts = project.attempts()
    silent, loud, deploy, shown, between = together(
        project,
        "call -v 0 silent leave silent -v 0",
        "call -v 0 loud leave loud",
        "call -v 0 deploy check --deploy",
        "call help leave --help",
        "call between -v 0 leave between --database default",
    )
    assert silent == Answer(0, "")
    assert loud == Answer(0, "Left loud behind.\n")
    assert (deploy.code, "security.W001" in deploy.err) == (0, True)
    assert (shown.code, "it would only print something" in shown.err) == (2, True)
    assert between == Answer(0, "Left between behind.\n")
    begun = {name for name, _, _ in project.attempts()} - {name for name, _, _ in attempts}
    assert begun == {"call:silent", "call:loud", "call:deploy", "call:between"}


def test_call_outside_of_a_transaction(project: Project) -> None:
    call = ("call", "--no-atomic", "key", "leave")
    process = project.once(*call, "seen", "--hold", "called", "--fail")
    project.wait_for("called")
    assert project.effects() == ["seen"]  # by others, before it ended
    project.release("called")
    assert process.finish() == 1
    assert "What it did outside stays; the next attempt has the same key." in process.output
    assert once(project, *call, "again").code == 0
    assert "  call:key is done already" in once(project, *call, "never").out
    assert project.effects() == ["again", "seen"]
    assert len(set(keys(project, "call:key"))) == 1
    assert project.attempts() == [("call:key", 1, "failed"), ("call:key", 2, "succeeded")]


# reset


def test_reset_asks_at_a_terminal(project: Project) -> None:
    project.routines(SHOP)
    assert once(project, "run").code == 0
    before = everything(project)
    refused = at_terminal(project, "reset", "plant.first", types="no\n")
    assert refused.code == 3
    assert "These are done, or may have run, and will run again:\n  [X] plant.first" in refused.out
    assert "Type 'yes' to continue: " in refused.out
    assert refused.out.endswith("CommandError: Nothing was reset.\n\x1b[0m")
    assert everything(project) == before
    answer = at_terminal(project, "reset", "plant.*rst", "--no-color", types="yes\n")
    assert answer.code == 0
    assert "  Resetting plant.first... OK\n" in answer.out
    assert project.completions() == ["plant.second", "plant.third"]


def test_reset_takes_the_end_of_the_input_for_a_no(project: Project) -> None:
    project.routines(SHOP)
    assert once(project, "run", "plant.first").code == 0
    answer = at_terminal(project, "reset", "plant.first", types="\x04")
    assert answer.code == 3
    assert "Traceback" not in answer.out
    assert project.completions() == ["plant.first"]


# Every subcommand


def test_usage_errors_are_2_and_change_nothing(project: Project) -> None:
    project.routines(SHOP)
    before = everything(project)
    known = "Routines here: plant.first, plant.second, plant.third."
    wanted: dict[tuple[str, ...], str] = {
        (): "the following arguments are required: SUBCOMMAND",
        ("rum",): "invalid choice: 'rum'",
        ("run", "--timeout", "-1"): "argument --timeout: '-1' is no number of seconds",
        ("wait", "plant.x*"): f"No routine is named 'plant.x*', and no app with routines. {known}",
        ("reset", "--no-input"): "the following arguments are required: NAME",
        ("call", "key"): "the following arguments are required: COMMAND",
        ("call", "key", "leave"): "leave: the following arguments are required: name",
    }
    answers = together(project, *wanted)
    for (arguments, message), answer in zip(wanted.items(), answers, strict=True):
        assert (arguments, answer.code, answer.out) == (arguments, 2, "")
        assert message in " ".join(answer.err.split()), answer.err
        assert "Traceback" not in answer.err
    assert everything(project) == before


def test_of_several_exit_codes_the_most_urgent_counts(project: Project) -> None:
    bad = frail().replace("frail", "bad")
    project.routines(ELSEWHERE + bad + frail(options="(retry=False)") + SLOW)
    assert once(project, "run", "plant.frail", FAIL="1").code == 1
    holder = project.once("run", "plant.slow")
    project.wait_for("slow")
    names = ["plant.elsewhere", "plant.bad", "plant.frail", "plant.slow"]
    run = ("run", "--keep-going", "--timeout", "2")
    failed = once(project, *run, *names, FAIL="1")
    names.remove("plant.bad")
    held, late, blocked = together(
        project, [*run, *names], [*run, names[0], names[2]], [*run, names[0]]
    )
    assert [answer.code for answer in (failed, held, late, blocked)] == [1, 5, 4, 3]
    assert failed.err.splitlines()[-1].startswith("CommandError: plant.bad failed. LookupError")
    assert re.findall(r"^  (plant\.\w+): ", held.err, re.MULTILINE) == names
    project.release("slow")
    assert holder.finish() == 0


def test_database_out_of_reach(project: Project) -> None:
    project.routines(SHOP)
    project.environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    project.environment["ONCE_STARTUP_TIMEOUT"] = "0"
    run, status, wait, call = together(
        project, "run", "status", "wait --timeout 0", "call key leave x"
    )
    assert [answer.code for answer in (run, status, wait, call)] == [4, 4, 4, 4]
    for answer in (run, wait, call):
        assert "database 'default' cannot be used: OperationalError: " in answer.err
        assert "Check that it runs and that DATABASES['default'] is right.\n" in answer.err
    assert status.err.startswith("CommandError: A database cannot be used: OperationalError: ")


def test_options_of_django_are_taken_by_each_subcommand(project: Project) -> None:
    project.routines(SHOP)
    silent = Answer(0, "")
    assert once(project, "run", "--verbosity", "0") == silent
    assert once(project, "reset", "plant.first", "plant.third", "-v0", "--no-input") == silent
    logged = once(project, "run", "plant.first", "-v", "0", "--settings", "tests.settings")
    assert (logged.code, logged.out) == (0, "")
    assert "event=finished routine=plant.first" in logged.err  # by the logger of those settings
    assert once(project, "run", "-v0") == silent
    assert once(project, "call", "-v", "0", "key", "leave", "x", "-v", "0") == silent
    assert once(project, "wait", "-v", "0") == silent
    traceback, quiet, *others = together(
        project,
        "run plant.gone --traceback",
        "run plant.gone",
        "status plant.gone --traceback",
        "wait plant.gone --traceback",
        "call --traceback key nothing",
        "reset --traceback plant.gone",
    )
    assert quiet.err.startswith("CommandError: No routine is named 'plant.gone'")
    for answer in (traceback, *others):
        assert answer.code != 0
        assert answer.err.startswith("Traceback (most recent call last)")
        assert "\ndjango.core.management.base.CommandError: " in answer.err


def test_colour_and_progress_at_a_terminal(project: Project) -> None:
    project.routines(BATCHED)
    run = at_terminal(project, "run")
    assert run.code == 0
    assert re.search(r"plant\.many: 100%\|[^|]+\| 10\.0/10\.0 ", run.out), run.out
    assert "\x1b[32;1mOK\x1b[0m" in run.out
    status = at_terminal(project, "status")
    assert "\x1b[32;1mcompleted\x1b[0m" in status.out
    plain = at_terminal(project, "status", "--no-color")
    assert plain.out.startswith("[X] plant.many  v1  completed  20")
    assert "\x1b" not in plain.out


#: What a person, a process or a server may have written.
HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b[2J\x07" + "x" * 90 + " 漢字" * 16 + "\n[X] forged\tand\u202e more"
)


def test_terminal_of_80_columns_bears_hostile_text_in_every_field(project: Project) -> None:
    wide = " or ".join(f"'{'漢' * 9}{number}'" for number in range(20))
    project.routines(f"""
        @routine
        def {"long_" * 30}name():
            raise LookupError({HOSTILE!r} if {wide} else 0)

        @routine
        def seed():
            pass
    """)
    answers = [at_terminal(project, "run", "--keep-going", columns=80)]
    said = quoted(HOSTILE)
    given = ", ".join(f'"{name}" = {said}' for name in ("host", "user", "reason", "release"))
    called = f"routine = {quoted('call:' + HOSTILE)}, \"trigger\" = 'fake'"
    project.execute(f"UPDATE once_attempt SET {given}, error = error || {said}")
    project.execute(f"UPDATE once_attempt SET {called} WHERE routine = 'plant.seed'")
    for call in ("run", "status", "status -v 2", "history -v 2 call:* plant.*", "doctor"):
        answers.append(at_terminal(project, *call.split(), columns=80))
    for answer in answers:
        shown = re.sub(r"\x1b\[(?:3\d;1|1|0)m", "", answer.out)
        assert shown.replace("\n", "").isprintable(), shown
        for line in shown.splitlines():
            assert columns(line) <= 80 or re.fullmatch(r' *File "[^"]+", line \d+,', line), line
    # What a body raises is no line of the list, whatever it says.
    assert "\n[X] forged" not in "".join(answer.out for answer in answers[2:])


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def columns(line: str) -> int:
    return sum(1 + (east_asian_width(character) in "WF") for character in line)


def test_help_fits_the_terminal_and_names_the_exit_codes(project: Project) -> None:
    project.environment["COLUMNS"] = "80"
    answers = together(project, "--help", *(f"{name} --help" for name in SUBCOMMANDS))
    for answer in answers:
        assert (answer.code, answer.err) == (0, "")
        assert max(map(len, answer.out.splitlines())) <= 80
        shown = " ".join(answer.out.split())
        assert shown.endswith(
            "Exit code: 0 done; 1 a routine failed; 2 usage; 3 not everything is done; 4 gave up "
            "waiting; 5 held or paused, a person decides; 130 and 143 after SIGINT and SIGTERM."
        )
        assert "--settings SETTINGS" in shown
    whole, *each = answers
    for name in SUBCOMMANDS:
        assert re.search(rf"^    {name} +[A-Z]", whole.out, re.MULTILINE)
    waiting = ["--no-wait", "--timeout SECONDS"]
    flags = [
        ["--plan", "--fake", "--keep-going", "--migrate", "--database ALIAS", "--json", *waiting],
        ["--check", "--json"],
        ["--timeout SECONDS"],
        ["--no-atomic", "--version N", "--database ALIAS", "--json", *waiting],
        ["--database ALIAS", "--noinput, --no-input", "--reason TEXT"],
        ["--database ALIAS", "--json"],
    ]
    for answer, wanted in zip(each, flags, strict=True):
        for flag in wanted:
            assert f"\n  {flag}" in answer.out
