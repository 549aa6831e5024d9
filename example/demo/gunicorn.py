"""Gunicorn's configuration for the demonstration: workers say what they do."""

import logging
import os
from typing import Any

bind = f"fd://{os.environ['EXAMPLE_SOCKET']}"
workers = int(os.environ["EXAMPLE_WORKERS"])
wsgi_app = "config.wsgi"
loglevel = "warning"
control_socket_disable = True  # several masters on one machine would share its path

logger = logging.getLogger("demo")


def post_worker_init(worker: Any) -> None:
    """The application is loaded."""
    logger.info("event=booted")


def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
    """A request is answered."""
    if worker.nr == 1:
        logger.info("event=answered")
