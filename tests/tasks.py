"""A Celery application on a broker in memory."""

from celery import Celery

app = Celery("tests", broker="memory://")
