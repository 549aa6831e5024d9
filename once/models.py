"""The record: completions, attempts and their anchors, failed items, and what people wish.

:mod:`once.record.recorder`, :mod:`once.record.anchors`, :mod:`once.record.failed_items`,
:mod:`once.record.wishes` and :mod:`once.record.workers` write it.
"""

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import CheckConstraint, Q, UniqueConstraint, functions
from django.utils.translation import gettext_lazy as _

from once.routines.names import NAME_LENGTH
from once.words import gettext, gettext_lazy


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
            # Without padding, because "a" and "a " are the same text with it.
            is_mariadb = connection.mysql_is_mariadb
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters


class Scoped(models.Model):
    """Columns of every table of the record. None of them is ever NULL."""

    routine = ExactCharField(_("routine"), max_length=NAME_LENGTH)
    version = models.PositiveIntegerField(_("version"))
    scope_key = ExactCharField(_("scope key"), max_length=200, blank=True, default="")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.routine} v{self.version} {self.scope_key}".rstrip()


class Completion(Scoped):
    """Having a row means that the effects of the routine are committed.

    The row commits in the transaction of the effects. There is one at most for each routine,
    version and scope key. A row of version ``TOMBSTONE`` means that the routine has another name
    now, under which all else is recorded.
    """

    completed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            UniqueConstraint(
                fields=["routine", "version", "scope_key"], name="once_completion_once"
            ),
            CheckConstraint(condition=~Q(routine=""), name="once_completion_named"),
        ]


class State(models.TextChoices):
    """State of an attempt. Only a running attempt may commit; every other state is final."""

    RUNNING = "running", gettext_lazy("running")
    SUCCEEDED = "succeeded", gettext_lazy("succeeded")
    FAILED = "failed", gettext_lazy("failed")
    #: Ended early without fault: stopped, or found that nothing was left to do.
    INTERRUPTED = "interrupted", gettext_lazy("interrupted")
    #: A successor took over: died, frozen, or cut off.
    LOST = "lost", gettext_lazy("lost")


class Trigger(models.TextChoices):
    """The caller of an attempt."""

    COMMAND = "command", gettext_lazy("command")
    STARTUP = "startup", gettext_lazy("server start")
    TEST = "test", gettext_lazy("test")
    CALL = "call", gettext_lazy("once call")
    #: A migration that needs it.
    MIGRATE = "migrate", gettext_lazy("migration")
    #: A migration that needed it was undone: no body was called.
    REVERSE = "reverse", gettext_lazy("migration undone")
    #: Its ``done_if`` said that its effects exist: no body was called.
    FOUND = "found", gettext_lazy("found done")
    #: Items that failed, each tried once more.
    ITEMS = "items", gettext_lazy("failed items")
    #: Its record was carried over to, or from, another name: no body was called.
    RENAME = "rename", gettext_lazy("rename")
    #: A person recorded it as done: no body was called.
    FAKE = "fake", gettext_lazy("fake")
    #: A person made it pending again: no body was called.
    RESET = "reset", gettext_lazy("reset")


#: Triggers of what a person decided, here or in the code, which calls no body.
DECISIONS = (Trigger.FAKE, Trigger.RESET, Trigger.REVERSE, Trigger.RENAME)
#: Triggers of attempts that called no body, so that their time tells nothing of one.
BODILESS = (*DECISIONS, Trigger.FOUND)


class Attempt(Scoped):
    """A row in state running is the right to commit: a process without one may not commit.

    Numbers count 1, 2, 3 for each routine, over all versions and scope keys. Two processes that
    both believe to hold the lock claim the same number, and the unique constraint admits one of
    them. ``finished_at`` is set exactly when the attempt does not run. ``cursor`` says how far
    batches are committed; if it is empty, the last non-empty cursor of earlier attempts does.
    """

    number = models.PositiveIntegerField(_("number"))
    key = models.CharField(_("idempotency key"), max_length=32)
    state = models.CharField(
        _("state"), max_length=11, choices=State.choices, default=State.RUNNING
    )
    #: False: as long as this attempt did not succeed, no other one follows by itself.
    retry = models.BooleanField(_("may be followed by another"), default=True)
    trigger = models.CharField(_("trigger"), max_length=20, choices=Trigger.choices)
    #: The person that decided, and the reason; of a rename, the other name.
    user = models.CharField(_("user"), max_length=255, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    host = models.CharField(_("host"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process id"))
    release = models.CharField(_("release"), max_length=200, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True)
    cursor = models.TextField(_("cursor"), blank=True)
    processed = models.PositiveBigIntegerField(_("processed"), default=0)
    #: The part of the processed items that earlier attempts processed.
    resumed = models.PositiveBigIntegerField(_("processed before"), default=0)
    total = models.PositiveBigIntegerField(_("total"), null=True, blank=True)
    #: The throttle for which it waits before the next batch, and for how long.
    throttled = models.TextField(blank=True)
    #: No column: True if its claim moved the anchor.
    is_anchored = False

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        constraints = [
            UniqueConstraint(fields=["routine", "number"], name="once_attempt_number"),
            CheckConstraint(condition=Q(state__in=State.values), name="once_attempt_state"),
            CheckConstraint(
                condition=Q(state="running", finished_at=None)
                | (~Q(state="running") & Q(finished_at__isnull=False)),
                name="once_attempt_finished",
            ),
            CheckConstraint(condition=Q(number__gte=1), name="once_attempt_counts"),
        ]

    def __str__(self) -> str:
        return gettext("{} v{} attempt {}").format(self.routine, self.version, self.number)

    @property
    def error_line(self) -> str:
        """The error without its traceback."""
        return self.error.partition("\n")[0]


class Anchor(Scoped):
    """Having a row means that its attempt must stay, as long as people delete old ones by hand.

    It is the last attempt at a routine, version and scope key that was let to act: the next one
    counts on from its number, has its idempotency key, goes on at its cursor, and may not begin
    where it is held. The foreign key has the database refuse to delete it. SQLite does so only in
    sessions that ask for it, so that there an attempt that is missing is noticed, by this row.
    """

    number = models.PositiveIntegerField()
    attempt = models.OneToOneField(Attempt, on_delete=models.PROTECT)

    class Meta:
        constraints = [
            UniqueConstraint(fields=["routine", "version", "scope_key"], name="once_anchor_once"),
        ]


class Wish(models.Model):
    """The last row of a routine says all that people want of it now; the rows before are history.

    Numbers count 1, 2, 3 for each routine, so that no wish is made without knowing the one before.
    Attempts read it and never write it. A pause holds for every version, until it is resumed. A run
    is wanted until an attempt begins. The other values hold for the version that they were set for,
    and where not NULL.
    """

    class Kind(models.TextChoices):
        """The act of a person."""

        PAUSE = "pause", gettext_lazy("pause")
        RESUME = "resume", gettext_lazy("resume")
        SET = "set", gettext_lazy("set")
        RUN = "run", gettext_lazy("run")

    routine = ExactCharField(max_length=NAME_LENGTH)
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    is_paused = models.BooleanField(default=False)
    #: Number of the last attempt when a run was wanted, which a later attempt answers.
    run_after = models.PositiveIntegerField(null=True, blank=True)
    #: The version that the values below are for; 0 where nothing was set.
    version = models.PositiveIntegerField(default=0)
    batch_size = models.PositiveIntegerField(null=True, blank=True)
    rest = models.FloatField(null=True, blank=True)
    batch_seconds = models.FloatField(null=True, blank=True)
    user = models.CharField(max_length=255, blank=True)
    reason = models.TextField(blank=True)
    made_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "wishes"
        constraints = [
            UniqueConstraint(fields=["routine", "number"], name="once_wish_number"),
        ]

    def __str__(self) -> str:
        return f"{self.routine} wish {self.number}"


class Worker(models.Model):
    """The last look of a ``once work`` with this role, as the proof that wishes for a run are read.

    Because it is one row for all processes of a role, no row is left of a process that is gone.
    """

    role = ExactCharField(max_length=50, blank=True, unique=True)
    looked_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.role


class FailedItem(Scoped):
    """Having a row means that a batch went on behind the item, which is not done.

    The row commits in the transaction that moves the cursor behind the item. It is deleted in the
    transaction of the item's effects.
    """

    #: The key of a row of a queryset, as text; of another item its position, from 1.
    item = ExactCharField(max_length=255)
    #: Number of the attempt in which it failed last.
    number = models.PositiveIntegerField()
    error = models.TextField(blank=True)
    failed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            UniqueConstraint(
                fields=["routine", "version", "scope_key", "item"], name="once_failed_item_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{super().__str__()} item {self.item}"


class Routine(Completion):
    """A routine in the admin, which has its URL and permissions by this name. It has no table."""

    class Meta:
        proxy = True
        verbose_name = _("routine")
        verbose_name_plural = _("routines")
        default_permissions = ("view",)
        permissions = [
            ("reset_routine", "Can reset routine"),
            ("fake_routine", "Can record routine as done"),
            ("pause_routine", "Can pause, resume and set routine"),
            ("run_routine", "Can have routine run now"),
        ]

    def __str__(self) -> str:
        return self.routine
