"""The record: completions, attempts, and the anchors that keep some attempts from being pruned.

:mod:`once.engine.recorder` and :mod:`once.engine.anchors` write it.
"""

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import functions
from django.utils.translation import gettext_lazy as _

from once.routines.base import NAME_LENGTH

__all__ = [
    "DECISIONS",
    "Anchor",
    "Attempt",
    "Completion",
    "ExactCharField",
    "Now",
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
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


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
    """State of an attempt. Only a running attempt may commit; every other state is final."""

    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    #: Ended early without fault: stopped, or found that nothing was left to do.
    INTERRUPTED = "interrupted", _("interrupted")
    #: A successor took over: died, frozen, or cut off.
    LOST = "lost", _("lost")


class Trigger(models.TextChoices):
    """The caller of an attempt."""

    COMMAND = "command", _("command")
    STARTUP = "startup", _("server start")
    TEST = "test", _("test")
    CALL = "call", _("once call")
    #: A person recorded it as done: no body was called.
    FAKE = "fake", _("fake")
    #: A person made it pending again: no body was called.
    RESET = "reset", _("reset")


#: Triggers of a person's decision, which calls no body.
DECISIONS = (Trigger.FAKE, Trigger.RESET)


class Attempt(models.Model):
    """A row in state running is the right to commit: a process without one may not commit.

    Numbers count 1, 2, 3 for each routine, over all versions and scope keys. Two processes that
    both believe to hold the lock claim the same number, and the unique constraint admits one of
    them. ``finished_at`` is set exactly when the attempt does not run. ``cursor`` says how far
    batches are committed; if it is empty, the last non-empty cursor of earlier attempts does.
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
    #: The person that decided, and the reason, if a person did.
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
    #: The part of the processed items that earlier attempts processed.
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


class Anchor(models.Model):
    """Having a row means that its attempt must stay, as long as people delete old ones by hand.

    It is the last attempt at a routine, version and scope key that was let to act: the next one
    counts on from its number, has its idempotency key, goes on at its cursor, and may not begin
    where it is held. The foreign key has the database refuse to delete it. SQLite does so only in
    sessions that ask for it, so that there an attempt that is missing is noticed, by this row.
    """

    routine = ExactCharField(_("routine"), max_length=NAME_LENGTH)
    version = models.PositiveIntegerField(_("version"))
    scope_key = ExactCharField(_("scope key"), max_length=200, blank=True, default="")
    number = models.PositiveIntegerField(_("number"))
    attempt = models.OneToOneField(Attempt, on_delete=models.PROTECT, verbose_name=_("attempt"))

    class Meta:
        verbose_name = _("anchor")
        verbose_name_plural = _("anchors")
        constraints = [
            models.UniqueConstraint(
                fields=["routine", "version", "scope_key"], name="once_anchor_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.routine} v{self.version} {self.scope_key}".rstrip()


class Routine(Completion):
    """A routine in the admin, which has its URL and permissions by this name. It has no table."""

    class Meta:
        proxy = True
        verbose_name = _("routine")
        verbose_name_plural = _("routines")
        default_permissions = ("view",)
        permissions = [
            ("reset_routine", _("Can reset routine")),
            ("fake_routine", _("Can record routine as done")),
        ]
