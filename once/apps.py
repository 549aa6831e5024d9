"""Register the app with Django."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from once.startup import early_queries

early_queries.watch()


class OnceConfig(AppConfig):
    """Start-up code that runs exactly once."""

    name = "once"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from once import conf, receivers
        from once.startup import hook

        checks.register(_check, "once")
        checks.register(_check_records, checks.Tags.database)  # by no other tag: it asks databases
        receivers.connect()
        with suppress(ImproperlyConfigured):  # which a check says
            if conf.lock_migrate():
                from once.cli import migrate

                migrate.lock_command()
        hook.arm()


# Because checks know locks and all, they are loaded for commands that check.


def _check(**kwargs: Any) -> Iterator[CheckMessage]:
    from once.checks import check

    return check()


def _check_records(databases: Sequence[str] | None = None, **kwargs: Any) -> Iterator[CheckMessage]:
    from once.checks import check_records

    return check_records(databases or ())
