"""From any release to any later one, with data, by one command, whatever dies.

``python -m tests.upgrades --all`` upgrades each pair in each database. Here it is a sixth of
them, which the seed chooses: ``TEST_SEED=7`` repeats a run.
"""

import os
import time
from pathlib import Path

import pytest

from tests.upgrades.databases import KINDS
from tests.upgrades.history import History, share

SEED = int(os.environ.get("TEST_SEED", time.time()))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_each_release_to_each_later_one(kind: str, tmp_path: Path) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    history = History(kind, tmp_path, f"once_upgrades_{worker}")
    try:
        history.walk()
        reports = [*history.reports(SEED, share(kind, SEED))]
    finally:
        history.end()
    assert len(reports) > 20
    assert not [str(report) for report in reports if report.differences], f"TEST_SEED={SEED}"
