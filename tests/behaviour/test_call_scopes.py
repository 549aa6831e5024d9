"""``once call`` in a scope: once for each release, or for each state of files."""

import shlex
from pathlib import Path

import pytest
from django.test import Client

from once.management.commands.once import Command
from once.models import Attempt
from once.record import anchors
from once.routines.content import digest, matches
from tests.behaviour.command import Answer, call, reset
from tests.support import attempts, completions, effects

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files of seed data in the current directory."""
    (tmp_path / "data").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "data" / name).write_text("1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def released(release: str, using: str, *options: str, fails: bool = False) -> Answer:
    """Call a command in a release."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ONCE_RELEASE", release)
        return call(using, "--per", "release", *options, arguments=["--fail"] if fails else [])


def loaded(using: str, *options: str) -> Answer:
    """Call a command for the files, as a new process does."""
    for read in (matches, digest):
        read.cache_clear()
    return call(using, *options)


def shown() -> dict[str, object]:
    """What the status says of the one command that was called."""
    (row,) = Answer("status", "--json").json["routines"]
    found: dict[str, object] = row
    return found


def test_call_per_release_runs_once_in_each(using: str) -> None:
    for release in ("1", "1", "2", "2", "1"):
        assert released(release, using).code == 0
    assert effects(using) == ["cheap", "cheap"]
    assert "call:prices is done already" in released("2", using).out
    assert len(completions(using)) == 2


def test_call_per_release_of_a_higher_version_runs_again_in_each(using: str) -> None:
    released("1", using)
    for release in ("1", "2", "2"):
        assert released(release, using, "--version", "2").code == 0
    assert "A newer version is recorded" in released("3", using).out
    assert effects(using) == ["cheap"] * 3


def test_call_per_release_without_a_release_is_a_usage_error(using: str) -> None:
    answer = call(using, "--per", "release")
    assert answer.code == 2
    assert answer.message == (
        "Routine 'call:prices' has scope=\"release\", but ONCE_RELEASE is unset. "
        "Set it to what is deployed, such as a tag or a commit."
    )
    assert attempts(using) == []


def test_call_per_content_runs_once_for_each_state_of_the_files(using: str, files: Path) -> None:
    options = ["--content", "data/a.csv", "--content", "data/[b-z].csv"]
    for text in ("1", "1", "2", "1"):
        (files / "data" / "b.csv").write_text(text)
        assert loaded(using, *options).code == 0
    assert effects(using) == ["cheap", "cheap"]
    (files / "data" / "c.csv").write_text("1")
    loaded(using, *options)
    assert effects(using) == ["cheap"] * 3


def test_call_per_content_counts_files_by_their_names_from_here(
    using: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(using, "--content", "data/*.csv")
    (files / "data").rename(files / "moved")
    (files / "elsewhere").mkdir()
    monkeypatch.chdir(files / "elsewhere")
    (files / "moved").rename(files / "elsewhere" / "data")
    assert "call:prices is done already" in loaded(using, "--content", "data/*.csv").out
    assert effects(using) == ["cheap"]


@pytest.mark.parametrize("pattern", ["gone.csv", "gone/*.csv", "data", ""])
def test_call_per_content_of_no_file_is_a_usage_error(
    using: str, files: Path, pattern: str
) -> None:
    answer = loaded(using, "--content", "data/*.csv", "--content", pattern)
    assert answer.code == 2
    assert f"no file matches {pattern!r} in {files}." in answer.message
    assert attempts(using) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--per release --content data/a.csv", "not allowed with argument --per"),
        ("--per day", "argument --per: invalid choice: 'day'"),
        ("--content", "the following arguments are required: COMMAND"),
    ],
)
def test_call_in_an_impossible_scope_is_a_usage_error(
    files: Path, options: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "once", "call", *options.split(), "x", "check"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert attempts("default") == []


def test_status_shows_the_scope_of_the_last_call(using: str, files: Path) -> None:
    call(using)
    assert (shown()["scope"], shown()["scope_key"]) == ("database", "")
    released("2024.1", using, fails=True)
    released("2024.1", using)
    assert (shown()["scope"], shown()["scope_key"]) == ("release", "2024.1")
    assert (shown()["attempts"], shown()["state"]) == (2, "completed")
    assert "  per release" in Answer("status").out
    loaded(using, "--content", "data/*.csv")
    assert shown()["scope"] == "content(...)"
    assert len(str(shown()["scope_key"])) == 64
    assert (shown()["attempts"], shown()["kind"]) == (1, "call")


def test_status_knows_a_release_that_looks_like_a_digest(using: str) -> None:
    released("0" * 64, using)
    assert shown()["scope"] == "release"


def test_status_is_that_of_the_last_call_and_not_of_an_earlier_release(using: str) -> None:
    released("1", using)
    assert released("2", using, fails=True).code == 1
    assert (shown()["state"], shown()["recorded_version"]) == ("failed", 1)
    assert "[ ] call:prices  v1  failed" in Answer("status").out


def test_call_in_an_earlier_release_says_how_it_stands_there(using: str) -> None:
    released("1", using)
    released("2", using, fails=True)
    answer = released("1", using)
    assert answer.code == 0
    assert "call:prices is done already: completed" in answer.out
    assert "To have it run again, raise --version, or reset the last call" in answer.out
    (row,) = released("1", using, "--json").json["routines"]
    assert (row["state"], row["outcome"], row["scope_key"]) == ("completed", "already_done", "1")
    assert (row["kind"], row["attempts"], row["error"]) == ("call", 1, None)


def test_admin_shows_the_scope_of_a_call(admin_client: Client) -> None:
    released("2024.1", "default")
    page = admin_client.get("/admin/once/routine/default:call:prices/change/").content.decode()
    assert '<th scope="row">Once per</th><td>release</td>' in page


def test_reset_has_the_last_call_called_again_and_no_other(using: str) -> None:
    for release in ("1", "2"):
        released(release, using)
    assert reset("prices").code == 0
    assert (shown()["state"], shown()["scope"], shown()["scope_key"]) == ("pending", "release", "2")
    assert reset("prices").out == "  call:prices is pending, so not done: nothing to reset.\n"
    for release in ("1", "2", "2"):
        assert released(release, using).code == 0
    assert effects(using) == ["cheap"] * 3


def test_reset_of_a_call_needs_no_file(using: str, files: Path) -> None:
    loaded(using, "--content", "data/*.csv")
    (files / "data" / "a.csv").rename(files / "data" / "c.csv")
    assert reset("prices").code == 0
    (files / "data" / "c.csv").rename(files / "data" / "a.csv")
    loaded(using, "--content", "data/*.csv")
    assert effects(using) == ["cheap", "cheap"]


def test_prune_leaves_every_release_done_and_the_last_call_shown(using: str) -> None:
    for release in ("1", "2", "3"):
        released(release, using)
    assert anchors.prune(using, 0) == 2
    assert Attempt.objects.using(using).get().release == "3"
    assert (shown()["state"], shown()["scope_key"]) == ("completed", "3")
    for release in ("1", "2", "3"):
        assert "is done already" in released(release, using).out
    assert effects(using) == ["cheap"] * 3


@pytest.mark.parametrize(
    "swallowed",
    ["--per release", "--per=release", "--content a.csv", "--no-wait", "--timeout 3", "--json"],
)
@pytest.mark.parametrize("before", ["", "--no-wait"])
def test_option_of_call_after_the_command_is_refused_and_says_where_it_belongs(
    using: str, before: str, swallowed: str
) -> None:
    arguments = shlex.split(f"--database {using} {before} prices leave x {swallowed}")
    answer = Answer("call", *arguments)
    assert answer.code == 2
    assert answer.message == (
        f"leave: unrecognized arguments: {swallowed}. "
        "Options of `once call`, such as --version, stand before KEY."
    )
    assert attempts(using) == []


def test_option_that_the_command_has_itself_is_for_the_command(using: str) -> None:
    answer = call(using, "-v1", arguments=["-v0", "--peri", "monthly"])
    assert (answer.code, effects(using)) == (0, ["cheap"])
    assert "call:prices... OK" in answer.out


def test_options_between_key_and_command_are_those_of_call(using: str) -> None:
    options = ["--database", using, "--version", "2"]
    assert Answer("call", "prices", *options, "leave", "x", "--database", using).code == 0
    assert shown()["version"] == 2
