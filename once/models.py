"""The record: which routines are done, and who tried.

Only :mod:`once.ledger` writes it, and :mod:`once.record` reads it.
"""

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import functions
from django.utils.translation import gettext_lazy as _

from once.base import NAME_LENGTH

__all__ = [
    "DECISIONS",
    "Attempt",
    "Completion",
    "ExactCharField",
    "Now",
    "Routine",
    "State",
    "Trigger",
]


class Now(functions.Now):
    """The database's clock. MySQL's is asked for UTC: a session's own time zone may be any."""

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField  # takes no types when it runs


class ExactCharField(_CharField):
    """Text whose every character counts, where MySQL's default is to take an é for an E."""

    def db_parameters(self, connection: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            found["collation"] = "utf8mb4_bin"
        return found


class Completion(models.Model):
    """Having a row means that the effects of the routine are committed.

    The row commits in the transaction of the effects. There is one at most for each routine,
    version and scope key; none of the three is ever NULL.
    """

    routine = ExactCharField(_("routine"), max_length=NAME_LENGTH)
    version = models.PositiveIntegerField(_("version"))
    scope_key = ExactCharField(_("scope key"), max_length=200, blank=True, default="")
    completed_at = models.DateTimeField(_("completed at"), db_default=Now())

    class Meta:
        verbose_name = _("completion")
        verbose_name_plural = _("completions")
        constraints = [
            models.UniqueConstraint(
                fields=["routine", "version", "scope_key"], name="once_completion_once"
            ),
            models.CheckConstraint(condition=~models.Q(routine=""), name="once_completion_named"),
        ]

    def __str__(self) -> str:
        return f"{self.routine} v{self.version} {self.scope_key}".rstrip()


class State(models.TextChoices):
    """How an attempt stands. Only a running one may commit; no other state is ever left."""

    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    #: Ended early without fault: stopped, or found that nothing was left to do.
    INTERRUPTED = "interrupted", _("interrupted")
    #: A successor took over: died, frozen, or cut off.
    LOST = "lost", _("lost")


class Trigger(models.TextChoices):
    """What made an attempt."""

    COMMAND = "command", _("command")
    STARTUP = "startup", _("server start")
    TEST = "test", _("test")
    CALL = "call", _("once call")
    #: A person recorded it as done: no body was called.
    FAKE = "fake", _("fake")
    #: A person made it pending again: no body was called.
    RESET = "reset", _("reset")


#: Triggers of what is no attempt to call the body, but a person's decision.
DECISIONS = (Trigger.FAKE, Trigger.RESET)


class Attempt(models.Model):
    """A row in state running is the right to commit: whoever may not commit any more has none.

    Numbers count 1, 2, 3 for each routine, whatever its version and scope key, because those
    exclude each other: two processes that both believe to hold the guard claim the same number,
    and the unique constraint admits one. ``finished_at`` is set exactly when it does not run.
    A non-empty ``cursor`` says how far batches are committed; so does the last non-empty one of
    the attempts before, where it is empty.
    """

    routine = ExactCharField(_("routine"), max_length=NAME_LENGTH)
    number = models.PositiveIntegerField(_("number"))
    version = models.PositiveIntegerField(_("version"))
    scope_key = ExactCharField(_("scope key"), max_length=200, blank=True, default="")
    key = models.CharField(_("idempotency key"), max_length=32)
    state = models.CharField(
        _("state"), max_length=11, choices=State.choices, default=State.RUNNING
    )
    #: False: as long as this attempt did not succeed, no other one follows by itself.
    retry = models.BooleanField(_("may be followed by another"), default=True)
    trigger = models.CharField(_("trigger"), max_length=20, choices=Trigger.choices)
    #: Who decided, and why, where a person did.
    user = models.CharField(_("user"), max_length=255, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    host = models.CharField(_("host"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process id"))
    release = models.CharField(_("release"), max_length=200, blank=True)
    started_at = models.DateTimeField(_("started at"), db_default=Now())
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)
    error = models.TextField(_("error"), blank=True)
    cursor = models.TextField(_("cursor"), blank=True)
    processed = models.PositiveBigIntegerField(_("processed"), default=0)
    #: How many of the processed ones are due to attempts before.
    resumed = models.PositiveBigIntegerField(_("processed before"), default=0)
    total = models.PositiveBigIntegerField(_("total"), null=True, blank=True)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        constraints = [
            models.UniqueConstraint(fields=["routine", "number"], name="once_attempt_number"),
            models.CheckConstraint(
                condition=models.Q(state__in=State.values), name="once_attempt_state"
            ),
            models.CheckConstraint(
                condition=models.Q(state="running", finished_at=None)
                | (~models.Q(state="running") & models.Q(finished_at__isnull=False)),
                name="once_attempt_finished",
            ),
            models.CheckConstraint(condition=models.Q(number__gte=1), name="once_attempt_counts"),
        ]

    def __str__(self) -> str:
        return f"{self.routine} v{self.version} attempt {self.number}"


class Routine(Completion):
    """What the admin calls a routine, so that it has permissions and a place there. No table."""

    class Meta:
        proxy = True
        verbose_name = _("routine")
        verbose_name_plural = _("routines")
        default_permissions = ("view",)
        permissions = [
            ("reset_routine", _("Can reset routine")),
            ("fake_routine", _("Can record routine as done")),
        ]
