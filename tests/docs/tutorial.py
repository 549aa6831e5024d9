"""Follows docs/tutorial.md as it is written, and says what differs.

``python -m tests.docs.tutorial DIRECTORY`` does so from nothing, with the installation, in a
directory that counts as the reader's home, and prints what a reader would see.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.project import ROOT

__all__ = ["PAGE", "Reader", "differs"]

PAGE = ROOT / "docs" / "tutorial.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
#: What another run has other values of, and what the shell says of a process that was killed.
_VARYING = (
    # What a terminal shows in one line.
    (r"(?m)^  Running (\S+\.\.\.)\n  \1", r"  Running \1"),
    (r"(?m)^bash: line .* Killed .*\n", ""),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\d+\.\d+s\b", "SECONDS"),
    (r"\bon \S+ \(pid \d+\)", "on HOST (pid PID)"),
    (r"(?<=SECONDS on )\S+", "HOST"),
    (r"\b[0-9a-f]{32}\b", "KEY"),
    (r"\band \d+ more\b", "and MORE"),
    (r"[\d,]+ of 2,000 \(\d+%\)(, [\d,]+/s)?(, [\d,]+s left)?", "PROGRESS"),
)


class Reader:
    """Somebody at a shell, who types what the page says."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory = directory
        self._shell = subprocess.Popen(
            ["timeout", "1800", "bash"],  # with all that it started
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def follow(
        self, page: str, told: Callable[[str], object] = lambda _: None
    ) -> Iterator[tuple[str, str]]:
        """What each command should print, and what it does print."""
        for language, text in _BLOCK.findall(page):
            if language == "python":
                self._write(*text.split("\n", 1))
            elif language == "sh":
                told(text)
                self.type(text)
                self._directory = Path(self.type("pwd").strip())
            else:
                for command, expected in _COMMAND.findall(text):
                    told(f"$ {command}")
                    printed = self.type(command)
                    told(printed.rstrip("\n"))
                    yield expected, printed

    def type(self, command: str) -> str:
        """Have the shell do something; what is printed meanwhile."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\n_code=$?; printf '\\n@end\\n'; (exit $_code)\n")
        self._shell.stdin.flush()
        lines = iter(self._shell.stdout.readline, "")
        printed: list[str] = []
        for line in lines:
            if line == "@end\n":
                return "".join(printed)[:-1]
            printed.append(line)
        raise AssertionError(f"The shell ended at {command!r}: {''.join(printed)}")

    def close(self) -> None:
        """Leave the shell."""
        self._shell.communicate()

    def _write(self, first: str, text: str) -> None:
        place, _, how = first.removeprefix("# ").partition(", ")
        file = self._directory / place
        if how == "at the end":
            text = f"{file.read_text()}\n\n{text}"
        elif how.startswith("instead of "):
            old = re.compile(rf"@routine\ndef {how.split()[-1]}\(.*?(?=\n\n\n|\Z)", re.DOTALL)
            text, count = old.subn(lambda _: text.rstrip("\n"), file.read_text())
            assert count == 1, first
        file.write_text(text)


def differs(expected: str, printed: str) -> bool:
    """Whether something else was printed than the page says, but for what varies."""
    pattern = re.escape(_normal(expected).rstrip("\n"))
    # A line of three points stands for any lines; at the end of a line, for the rest of it.
    pattern = re.sub(r"(?m)^\\\.\\\.\\\.(\\\n|$)", lambda _: r"(?:.*(?:\n|$))*?", pattern)
    pattern = re.sub(r"(?m)\\ \\\.\\\.\\\.(?=\\\n|$)", r" .*", pattern)
    return re.fullmatch(pattern, _normal(printed).rstrip("\n")) is None


def _normal(text: str) -> str:
    for varying, name in _VARYING:
        text = re.sub(varying, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


if __name__ == "__main__":
    home = Path(sys.argv[1]).resolve()
    home.mkdir(parents=True)
    plain = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
    reader = Reader(ROOT, plain)
    faults = [both for both in reader.follow(PAGE.read_text(), print) if differs(*both)]
    reader.close()
    for expected, printed in faults:
        print(f"--- expected\n{expected}--- printed\n{printed}")
    sys.exit(bool(faults))
