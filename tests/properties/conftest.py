"""What must hold of anything, tried on generated values.

Each run tries the same ones, so that the gate tells of a commit and not of its luck. To look
further, by chance: ``ONCE_EXAMPLES=5000 pytest tests/properties``. What that finds is shrunk, and
printed with a line ``@reproduce_failure`` that repeats it.
"""

import os

from hypothesis import HealthCheck, settings

from tests.contract.conftest import _bare, using

__all__ = ["_bare", "using"]

EXAMPLES = os.environ.get("ONCE_EXAMPLES", "")

settings.register_profile(
    "properties",
    derandomize=not EXAMPLES,
    max_examples=int(EXAMPLES or 80),
    # No test of ours is of a time, and the machine may be busy.
    deadline=None,
    database=None,
    print_blob=True,
    # What fixtures give here is the same for every example.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("properties")
