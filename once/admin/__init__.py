"""Routines and their attempts in Django's admin.

Imported by the admin alone. A site of your own registers them as any other model::

    site.register(Attempt, AttemptAdmin)
    site.register(Routine, RoutineAdmin)
"""

from django.contrib import admin

from once.admin.attempts import AttemptAdmin
from once.admin.routines import RoutineAdmin
from once.models import Attempt, Routine

__all__ = ["AttemptAdmin", "RoutineAdmin"]

admin.site.register(Attempt, AttemptAdmin)
admin.site.register(Routine, RoutineAdmin)
