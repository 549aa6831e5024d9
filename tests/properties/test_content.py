"""Digests of files, of any names and bytes."""

import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from once import content
from once.routines.content import digest, matches
from tests.properties.support import ask

Files = dict[str, bytes]

#: What one file could lend to the next, if nothing told where it ends.
NAMES = st.text(alphabet="a1:", min_size=1, max_size=3)
FILES = st.dictionaries(NAMES, st.text(alphabet="a1:", max_size=3).map(str.encode), min_size=1)


def digest_of(files: Files, *patterns: str) -> str:
    """The digest as a new process reads it."""
    with TemporaryDirectory() as directory:
        for name, data in files.items():
            (Path(directory) / name).write_bytes(data)
        digest.cache_clear()
        matches.cache_clear()
        return digest(content(*patterns), Path(directory))


@given(FILES, FILES)
def test_digest_is_the_same_where_names_and_bytes_are(one: Files, other: Files) -> None:
    assert (digest_of(one, "*") == digest_of(other, "*")) == (one == other)


@given(FILES, st.data())
def test_what_moves_between_files_and_names_changes_the_digest(files: Files, data: Any) -> None:
    """Of files that look alike when they stand in a row."""
    row = b"".join(name.encode() + files[name] for name in sorted(files))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(row)), min_size=1, max_size=5)))
    parts = [row[a:b] for a, b in zip([0, *cuts], [*cuts, len(row)], strict=True)]
    other = {name.decode(): part for name, part in zip(parts[::2], parts[1::2], strict=False)}
    assume("" not in other and other != files)
    assert digest_of(other, "*") != digest_of(files, "*")


@given(FILES, st.randoms(use_true_random=False))
def test_order_and_number_of_patterns_change_nothing(files: Files, dice: Any) -> None:
    patterns = [glob.escape(name) for name in files] * 2 + ["*"]
    dice.shuffle(patterns)
    assert digest_of(files, *patterns) == digest_of(files, "*")


@given(st.text() | st.text(alphabet="[]!*?/.a\0\ud800\udcff"))
@example("\0/*")
@example("\ud800/*")
def test_any_pattern_means_files_or_is_refused(pattern: str) -> None:
    assume(not pattern.startswith("/") and ".." not in pattern)
    found, refusal = ask(lambda: digest_of({"a": b""}, pattern), FileNotFoundError)
    if refusal:
        assert f"no file matches {pattern!r} in" in refusal
    else:
        assert found == digest_of({"a": b""}, "a")
