"""Only where ``EXTRA_APPS`` installs it: see :mod:`example.screenshots`."""

import os
import time
from collections.abc import Sequence

from once import Run, content, routine

RATES = "EUR,1.0\nJPY,160.2\nXAU,n/a\n"

#: What an earlier release had, and this one has no more.
if "EXAMPLE_EARLIER" in os.environ:

    @routine
    def copy_legacy_customers() -> None:
        """From a table that is gone."""


@routine
def import_rates() -> None:
    """Fails: gold has no rate."""
    for line in RATES.splitlines():
        _, rate = line.split(",")
        float(rate)


@routine(atomic=False, retry=False, startup=False)
def invoice_customers(run: Run) -> None:
    """Fails half-way: nobody knows what the other side did."""
    raise TimeoutError("The bank did not answer within 10 s.")


@routine(over=lambda: range(48_000), batch_size=400, rest=0.05, startup=False)
def number_invoices(numbers: Sequence[int]) -> None:
    """Takes its time."""
    time.sleep(0.01)


@routine(scope=content("*.py"))
def load_templates() -> None:
    """Once for each state of some files."""


@routine(after=[import_rates])
def price_in_euro() -> None:
    """Waits for what failed."""
