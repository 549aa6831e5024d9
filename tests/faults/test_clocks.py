"""Processes whose clocks are hours apart: nothing hangs on them."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import LIVENESS, Project
from tests.servers import missing
from tests.waiting import GRACE

#: Moves what the C library says of the time of day; clocks that measure durations stay.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t shift(void) {
    const char *seconds = getenv("CLOCK_OFF_BY");
    return seconds ? atol(seconds) : 0;
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(clock, at);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) at->tv_sec += shift();
    return result;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""
#: Each effect says by how many hours the clock differs from that of the file system.
ROUTINES = """
    def hours(point):
        reach(point)
        [mark] = [
            entry
            for entry in os.scandir(os.environ["HANDSHAKE"])
            if entry.name == f"{point}.{os.getpid()}"
        ]
        return round((time.time() - mark.stat().st_mtime) / 3600)


    @routine
    def seed(run):
        effect(f"seed {hours(f'body{run.attempt}'):+}")
        hold(f"body{run.attempt}")


    @routine(after=[seed])
    def fail(run):
        if run.attempt == 1:
            raise ValueError("the first time")
        effect(f"after a failure {hours('retried'):+}")
"""


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the clock of who loads it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        missing("a C compiler, on Linux")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    command = [str(compiler), "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=CLOCK, text=True, check=True)
    return library


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
def test_clocks_hours_apart(project: Project, clock: Path) -> None:
    def off_by(hours: int) -> dict[str, str]:
        return {"LD_PRELOAD": f"{clock}", "CLOCK_OFF_BY": f"{hours * 3600}"}

    project.routines(ROUTINES)
    behind = project.once("run", "plant.seed", **off_by(-1))
    project.wait_for("body1")
    ahead = project.once("run", **off_by(1))
    # Nobody takes over from who is alive, for longer than the liveness timeout.
    ahead.wait_for("Waiting", times=3)
    assert project.reached("body2") == []
    if project.is_sqlite:
        behind.kill()
    else:
        behind.send(signal.SIGSTOP)
    assert project.wait_for("body2") < LIVENESS + GRACE
    project.release("body1")
    project.release("body2")
    assert ahead.finish() == 1, ahead.output  # since the second routine fails
    if not project.is_sqlite:
        behind.send(signal.SIGCONT)
        assert behind.finish() == 0, behind.output
        assert "lost its right to commit" in behind.output
    assert project.effects() == ["seed +1"]
    # All replicas count the delay after a failure from the same moment.
    server = project.manage(
        "runserver",
        "--noreload",
        "127.0.0.1:0",
        ONCE_RETRY_DELAY="600",
        ONCE_STARTUP_FAILURE="log",
        PYTHONDEVMODE="",
        **off_by(1),
    )
    server.wait_for("Starting servers try again in")
    [wait, *_] = re.findall(r"try again in (\d+) s", server.output)
    assert 400 < int(wait) <= 600
    assert project.reached("retried") == []
    server.kill()
    assert project.once("run", **off_by(-1)).finish() == 0
    assert project.effects() == ["after a failure -1", "seed +1"]
    if not project.is_sqlite:  # whose clock is that of whoever asks
        now = "UTC_TIMESTAMP(6)" if project.is_mysql else "now()"
        recent = f"started_at BETWEEN {now} - INTERVAL '30' MINUTE AND {now}"
        assert project.rows(f"SELECT count(*) FROM once_attempt WHERE NOT {recent}") == [(0,)]
