"""Registers the app with Django."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from once import early

early.watch()


class OnceConfig(AppConfig):
    """Start-up code that runs exactly once."""

    name = "once"
    verbose_name = _("Once")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from once import checks, log, startup

        checks.register()
        log.connect()
        startup.arm()
