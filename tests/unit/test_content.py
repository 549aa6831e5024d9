"""Scope ``content``: what changes the digest of files, and what does not."""

import functools
import hashlib
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from once import Routine, content
from once.exceptions import RoutineError
from once.routines import scopes
from once.routines.content import Content, digest, matches


def digest_of(directory: Path, *patterns: str | Path) -> str:
    """The digest as a new process reads it."""
    digest.cache_clear()
    matches.cache_clear()
    return digest(content(*patterns), directory)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two files of seed data, and another one."""
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("2")
    (tmp_path / "notes.txt").write_text("3")
    return tmp_path


def test_digest_has_64_hexadecimal_digits(directory: Path) -> None:
    found = digest_of(directory, "*.csv")
    assert len(found) == hashlib.sha256().digest_size * 2
    assert int(found, 16) >= 0


def test_digest_changes_with_the_bytes_and_returns_with_them(directory: Path) -> None:
    before = digest_of(directory, "*.csv")
    (directory / "b.csv").write_bytes(b"2\xff")
    assert digest_of(directory, "*.csv") != before
    (directory / "b.csv").write_text("2")
    assert digest_of(directory, "*.csv") == before


def test_digest_of_large_files_is_read_in_pieces(directory: Path) -> None:
    data = bytes(range(256)) * 40_001
    (directory / "a.csv").write_bytes(data)
    tracemalloc.start()
    found = digest_of(directory, "*.csv")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(data) / 10
    # As the records of earlier releases have it.
    whole = b"5:a.csv%d:" % len(data) + data + b"5:b.csv1:2"
    assert found == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("changed", ["", "1" * 300_000])
def test_file_whose_size_changes_while_it_is_read_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    read = hashlib.file_digest

    def write_and_read(file: Any, algorithm: Any) -> Any:
        (directory / "b.csv").write_text(changed)
        return read(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", write_and_read)
    with pytest.raises(ImproperlyConfigured) as refusal:
        digest_of(directory, "b.csv")
    sizes = f"of 1 bytes it had {len(changed)}."
    assert f"b.csv changed while it was read: {sizes} Start again" in str(refusal.value)
    monkeypatch.undo()
    assert digest(content("b.csv"), directory) == digest_of(directory, "b.csv")


def rename(directory: Path) -> None:
    (directory / "a.csv").rename(directory / "c.csv")


def exchange(directory: Path) -> None:
    (directory / "a.csv").write_text("2")
    (directory / "b.csv").write_text("1")


def move_bytes(directory: Path) -> None:
    (directory / "a.csv").write_text("12")
    (directory / "b.csv").write_text("")


def add(directory: Path) -> None:
    (directory / "c.csv").touch()


def remove(directory: Path) -> None:
    (directory / "b.csv").unlink()


@pytest.mark.parametrize("change", [rename, exchange, move_bytes, add, remove])
def test_digest_covers_which_file_holds_what(
    directory: Path, change: Callable[[Path], None]
) -> None:
    before = digest_of(directory, "*.csv")
    change(directory)
    assert digest_of(directory, "*.csv") != before


def test_digest_tells_names_from_bytes(directory: Path) -> None:
    (directory / "a").write_text("b2")
    one_file = digest_of(directory, "[ab]")
    (directory / "a").write_text("")
    (directory / "b").write_text("2")
    assert digest_of(directory, "[ab]") != one_file


def test_digest_does_not_depend_on_other_files(directory: Path) -> None:
    before = digest_of(directory, "*.csv")
    (directory / "notes.txt").write_text("4")
    assert digest_of(directory, "*.csv") == before


def test_digest_does_not_depend_on_where_the_directory_is(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "deployed"
    other.mkdir()
    for name in ("a.csv", "b.csv"):
        (other / name).write_bytes((directory / name).read_bytes())
    assert digest_of(other, "*.csv") == digest_of(directory, "*.csv")


def test_order_and_number_of_patterns_are_irrelevant(directory: Path) -> None:
    expected = digest_of(directory, "*.csv")
    assert digest_of(directory, "b.csv", "a.csv") == expected
    assert digest_of(directory, "a.csv", "*.csv", "./b.csv") == expected


def test_two_stars_reach_into_directories(directory: Path) -> None:
    (directory / "deep" / "er").mkdir(parents=True)
    (directory / "deep" / "er" / "c.csv").write_text("5")
    before = digest_of(directory, "**/*.csv")
    assert before != digest_of(directory, "*.csv")
    (directory / "deep" / "er" / "c.csv").write_text("6")
    assert digest_of(directory, "**/*.csv") != before


def test_directories_are_no_files(directory: Path) -> None:
    before = digest_of(directory, "*")
    (directory / "more.csv").mkdir()
    assert digest_of(directory, "*") == before


@pytest.mark.parametrize("kind", [str, Path])
def test_absolute_pattern_is_taken_as_it_is(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, kind: type[str] | type[Path]
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    before = digest_of(elsewhere, kind(directory / "*.csv"))
    (directory / "a.csv").write_text("7")
    assert digest_of(elsewhere, kind(directory / "*.csv")) != before


def test_absolute_pattern_means_the_same_in_another_checkout(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("deployed")
    (other / "a.csv").write_bytes((directory / "a.csv").read_bytes())
    assert digest_of(other, other / "a.csv") == digest_of(directory, directory / "a.csv")


@pytest.mark.parametrize(
    "pattern", ["data/a.csv", "data/*.csv", "**/a.csv", "data/../data/[a].csv", "d*/a.csv"]
)
def test_absolute_pattern_means_the_same_in_a_checkout_of_another_depth(
    tmp_path: Path, pattern: str
) -> None:
    digests = set()
    for checkout in (tmp_path / "one", tmp_path / "deep" / "er" / "two"):
        (checkout / "src" / "shop").mkdir(parents=True)
        (checkout / "data").mkdir()
        (checkout / "data" / "a.csv").write_text("1")
        digests |= {digest_of(code, checkout / pattern) for code in (checkout / "src", checkout)}
    assert len(digests) == 1


def test_files_of_absolute_patterns_that_are_named_alike_both_count(directory: Path) -> None:
    (directory / "more").mkdir()
    (directory / "more" / "a.csv").write_text("8")
    patterns = [directory / "a.csv", directory / "more" / "a.csv"]
    before = digest_of(directory, *patterns)
    for pattern in patterns:
        pattern.write_text("9")
        assert digest_of(directory, *patterns) != before
        before = digest_of(directory, *patterns)


@pytest.mark.parametrize("pattern", ["gone.csv", "gone/*.csv", "more"])
def test_pattern_without_a_file_is_refused_though_others_match(
    directory: Path, pattern: str
) -> None:
    (directory / "more").mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(f"no file matches {pattern!r} in ")):
        digest_of(directory, "*.csv", pattern)


def test_process_reads_files_once(directory: Path) -> None:
    before = digest_of(directory, "*.csv")
    (directory / "a.csv").write_text("changed while the process runs")
    assert digest(content("*.csv"), directory) == before


def test_content_of_nothing_is_refused() -> None:
    with pytest.raises(RoutineError, match=r"names no files\. Write content\("):
        content()


@pytest.mark.parametrize("pattern", [3, None, b"a.csv", ["a.csv"]])
def test_content_of_what_is_no_text_is_refused(pattern: Any) -> None:
    with pytest.raises(RoutineError, match=re.escape(f"takes text, not {pattern!r}. Write")):
        content("a.csv", pattern)


def test_content_says_its_patterns() -> None:
    assert content("a.csv", Path("b.csv")) == Content(("a.csv", "b.csv"))
    assert str(content("a.csv", "b/*.csv")) == "content('a.csv', 'b/*.csv')"


def plain() -> None: ...


@functools.lru_cache
def wrapped() -> None: ...


@pytest.mark.parametrize("function", [plain, wrapped])
def test_patterns_are_relative_to_the_module_that_declares_the_body(
    function: Callable[[], None],
) -> None:
    made = Routine(function=function, name="x", scope=content(Path(__file__).name))
    assert made.scope_key == digest_of(Path(__file__).parent, Path(__file__).name)


def test_file_that_cannot_be_read_is_a_problem_of_the_configuration(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = content(directory / "*.csv")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: path != directory / "b.csv")
        with pytest.raises(ImproperlyConfigured, match=r"may not read .*b\.csv\. Correct the"):
            scopes.check(files, "shop.load", lambda: None)
    scopes.check(files, "shop.load", lambda: None)
    (directory / "a.csv").unlink()  # after it was listed
    digest.cache_clear()
    with pytest.raises(ImproperlyConfigured, match=r"a\.csv'\. Correct the pattern, or ship"):
        scopes.key(files, "shop.load", lambda: None)
