"""An app that holds its process where all apps are loaded, until every other one is there too."""

import logging
import os

from django.apps import AppConfig

logger = logging.getLogger("demo")


class GateConfig(AppConfig):
    name = "demo"

    def ready(self) -> None:
        logger.info("event=loaded")
        # Returns when the demonstration closes the other end of the pipe.
        os.read(int(os.environ["EXAMPLE_GATE"]), 1)
