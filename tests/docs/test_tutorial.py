"""The tutorial works as it is written: files are made, commands typed, their output compared."""

import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.docs.tutorial import PAGE, Reader, differs


@pytest.mark.long
def test_tutorial(tmp_path: Path) -> None:
    installation, *_ = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    page = PAGE.read_text().replace(f"```sh\n{installation}```", "")  # this is installed
    assert "```sh" not in page
    with socket.create_server(("127.0.0.1", 0)) as free:
        page = page.replace(":8000", f":{free.getsockname()[1]}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    reader = Reader(tmp_path, {"HOME": str(tmp_path), "PATH": path, "PYTHONUNBUFFERED": "1"})
    try:
        for expected, printed in reader.follow(page):
            assert not differs(expected, printed), f"expected:\n{expected}\nprinted:\n{printed}"
    finally:
        reader.type("kill $(cat gunicorn.pid); kill -9 $(jobs -p); python database.py stop")
        reader.close()


def test_difference_is_seen_and_what_varies_is_not() -> None:
    line = "[X] shop.a  v1  completed  2026-11-22 17:48:46 UTC  in 0.012s on web-1\n"
    assert not differs(line, line.replace("17:48", "09:01").replace("0.012", "7.3"))
    assert differs(line, line.replace("v1", "v2"))
    assert differs(line, "")
    assert differs("", line)
    assert not differs("...\nlast\n", "first\nsecond\nlast\n")
    assert differs("...\nlast\n", "first\nlast\nmore\n")
