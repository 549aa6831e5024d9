"""Prints the seconds of CPU time that ``django.setup()`` takes in this fresh process.

Not those on the clock, which tell what else the machine does. The bodies are loaded before, since
the project has them in any case, and only some apps import them.
"""

from time import process_time

import django
from django.conf import settings

if __name__ == "__main__":
    settings._setup()  # type: ignore[misc]  # reading the settings is not what is measured
    from benchmarks.project import work  # noqa: F401

    begun = process_time()
    django.setup()
    print(process_time() - begun)
