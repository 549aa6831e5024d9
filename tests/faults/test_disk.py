"""A disk that is full."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.support import Server
from tests.project import Project
from tests.servers import missing

SEED = """
    @routine
    def seed():
        effect("seed")


    @routine(atomic=False)
    def external():
        reach("external")
        effect("external")
"""


@pytest.fixture
def small() -> Iterator[Path]:
    """A directory with a disk of its own, and little room."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        missing("root with mount")
    place = Path(tempfile.mkdtemp(prefix="once-disk-"))  # which a server's user can reach
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
    place.rmdir()


def fill(place: Path) -> Path:
    """Leave no room; the file to remove in order to have some again."""
    filler = place / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2**22))
    return filler


def assert_full_disk_is_named_and_nothing_is_recorded(project: Project, filler: Path) -> None:
    process = project.once("run", "--keep-going", ONCE_STARTUP_TIMEOUT="1")
    assert process.finish() == 4, process.output
    assert "database 'default' cannot be used: " in process.output
    assert "failed" not in process.output
    assert "full" in process.output or "No space left" in process.output
    assert project.reached("external") == []
    assert (project.effects(), project.completions(), project.attempts()) == ([], [], [])
    filler.unlink()
    again = project.once("run")
    assert again.finish() == 0, again.output
    assert project.effects() == ["external", "seed"]


@pytest.mark.parametrize("kind", ["sqlite"])
def test_full_disk_is_named_and_nothing_is_recorded(project: Project, small: Path) -> None:
    shutil.copy(project.url.removeprefix("sqlite:///"), small / "db.sqlite3")
    project.url = project.admin_url = f"sqlite:///{small}/db.sqlite3"
    project.environment["DATABASE_URL"] = project.url
    project.routines(SEED)
    assert_full_disk_is_named_and_nothing_is_recorded(project, fill(small))


def test_full_disk_of_a_server(own_project: Project, server: Server, small: Path) -> None:
    project = own_project
    [(data,)] = project.rows("SELECT current_setting('data_directory')")
    os.chown(small, Path(data).stat().st_uid, -1)
    server.execute(f"CREATE TABLESPACE once_small LOCATION '{small}'")
    try:
        project.execute("ALTER TABLE once_attempt SET TABLESPACE once_small")
        project.routines(SEED)
        assert_full_disk_is_named_and_nothing_is_recorded(project, fill(small))
        project.execute("ALTER TABLE once_attempt SET TABLESPACE pg_default")
    finally:
        server.execute("DROP TABLESPACE once_small")
