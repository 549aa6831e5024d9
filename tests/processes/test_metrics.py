"""Metrics of several processes behind one port, by the page of the documentation."""

import re
import sys
from pathlib import Path

import pytest

from tests.project import ROOT, Process, Project

PAGE = (ROOT / "docs" / "reference" / "observability.md").read_text()
[METRICS] = re.findall(r"```python\n# shop/metrics.py\n(.*?)```", PAGE, re.DOTALL)

ROUTINES = """
    from once.prometheus import register
    register()

    @routine
    def seed():
        effect("seed")
"""


def manage(project: Project, directory: Path, *arguments: str) -> Process:
    """Start ``manage.py ...`` in prometheus-client's multiprocess mode."""
    command = (sys.executable, "-m", "tests.manage", *arguments)
    process = project.start(*command, PROMETHEUS_MULTIPROC_DIR=str(directory))
    assert process.finish() == 0, process.output
    return process


@pytest.mark.parametrize("kind", ["sqlite"])
def test_scrape_of_one_process_tells_of_the_attempts_of_all(
    project: Project, tmp_path: Path
) -> None:
    project.routines(ROUTINES)
    manage(project, tmp_path, "once", "run")
    show = f"{METRICS}\nprint(metrics(None).content.decode())"
    told = manage(project, tmp_path, "shell", "-v0", "-c", show).output.splitlines()
    assert 'once_attempts_total{routine="plant.seed",state="succeeded"} 1.0' in told
    assert 'once_attempt_seconds_count{routine="plant.seed"} 1.0' in told
    assert 'once_routines{database="default",state="completed"} 1.0' in told
