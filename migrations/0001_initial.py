from typing import Any

from django.db import migrations, models

import once.models

ID = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")
STATES = ["running", "succeeded", "failed", "interrupted", "lost"]
WISHES = ["pause", "resume", "set", "run"]
TRIGGERS = [
    ("command", "command"),
    ("startup", "server start"),
    ("test", "test"),
    ("call", "once call"),
    ("migrate", "migration"),
    ("reverse", "migration undone"),
    ("found", "found done"),
    ("items", "failed items"),
    ("rename", "rename"),
    ("fake", "fake"),
    ("reset", "reset"),
]
#: Columns of every table; each model has clones of these fields.
SCOPED: list[tuple[str, Any]] = [
    ("id", ID),
    ("routine", once.models.ExactCharField(max_length=200, verbose_name="routine")),
    ("version", models.PositiveIntegerField(verbose_name="version")),
    (
        "scope_key",
        once.models.ExactCharField(
            blank=True, default="", max_length=200, verbose_name="scope key"
        ),
    ),
]


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Attempt",
            fields=[
                *SCOPED,
                ("number", models.PositiveIntegerField(verbose_name="number")),
                ("key", models.CharField(max_length=32, verbose_name="idempotency key")),
                (
                    "state",
                    models.CharField(
                        choices=[(state, state) for state in STATES],
                        default="running",
                        max_length=11,
                        verbose_name="state",
                    ),
                ),
                (
                    "retry",
                    models.BooleanField(default=True, verbose_name="may be followed by another"),
                ),
                (
                    "trigger",
                    models.CharField(choices=TRIGGERS, max_length=20, verbose_name="trigger"),
                ),
                ("user", models.CharField(blank=True, max_length=255, verbose_name="user")),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                ("host", models.CharField(blank=True, max_length=255, verbose_name="host")),
                ("pid", models.PositiveIntegerField(verbose_name="process id")),
                ("release", models.CharField(blank=True, max_length=200, verbose_name="release")),
                ("started_at", models.DateTimeField(db_default=once.models.Now())),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.TextField(blank=True)),
                ("cursor", models.TextField(blank=True, verbose_name="cursor")),
                ("processed", models.PositiveBigIntegerField(default=0, verbose_name="processed")),
                (
                    "resumed",
                    models.PositiveBigIntegerField(default=0, verbose_name="processed before"),
                ),
                (
                    "total",
                    models.PositiveBigIntegerField(blank=True, null=True, verbose_name="total"),
                ),
                ("throttled", models.TextField(blank=True)),
            ],
            options={
                "verbose_name": "attempt",
                "verbose_name_plural": "attempts",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("routine", "number"), name="once_attempt_number"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(state__in=STATES), name="once_attempt_state"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(state="running", finished_at=None)
                        | (~models.Q(state="running") & models.Q(finished_at__isnull=False)),
                        name="once_attempt_finished",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(number__gte=1), name="once_attempt_counts"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Completion",
            fields=[
                *SCOPED,
                ("completed_at", models.DateTimeField(db_default=once.models.Now())),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("routine", "version", "scope_key"), name="once_completion_once"
                    ),
                    models.CheckConstraint(
                        condition=~models.Q(routine=""), name="once_completion_named"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Anchor",
            fields=[
                *SCOPED,
                ("number", models.PositiveIntegerField()),
                (
                    "attempt",
                    models.OneToOneField(on_delete=models.deletion.PROTECT, to="once.attempt"),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("routine", "version", "scope_key"), name="once_anchor_once"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Wish",
            fields=[
                ("id", ID),
                ("routine", once.models.ExactCharField(max_length=200)),
                ("number", models.PositiveIntegerField()),
                (
                    "kind",
                    models.CharField(choices=[(kind, kind) for kind in WISHES], max_length=10),
                ),
                ("is_paused", models.BooleanField(default=False)),
                ("run_after", models.PositiveIntegerField(blank=True, null=True)),
                ("version", models.PositiveIntegerField(default=0)),
                ("batch_size", models.PositiveIntegerField(blank=True, null=True)),
                ("rest", models.FloatField(blank=True, null=True)),
                ("batch_seconds", models.FloatField(blank=True, null=True)),
                ("user", models.CharField(blank=True, max_length=255)),
                ("reason", models.TextField(blank=True)),
                ("made_at", models.DateTimeField(db_default=once.models.Now())),
            ],
            options={
                "verbose_name_plural": "wishes",
                "constraints": [
                    models.UniqueConstraint(fields=("routine", "number"), name="once_wish_number"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", ID),
                ("role", once.models.ExactCharField(blank=True, max_length=50, unique=True)),
                ("looked_at", models.DateTimeField(db_default=once.models.Now())),
            ],
        ),
        migrations.CreateModel(
            name="FailedItem",
            fields=[
                *SCOPED,
                ("item", once.models.ExactCharField(max_length=255)),
                ("number", models.PositiveIntegerField()),
                ("error", models.TextField(blank=True)),
                ("failed_at", models.DateTimeField(db_default=once.models.Now())),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("routine", "version", "scope_key", "item"),
                        name="once_failed_item_once",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Routine",
            fields=[],
            options={
                "verbose_name": "routine",
                "verbose_name_plural": "routines",
                "permissions": [
                    ("reset_routine", "Can reset routine"),
                    ("fake_routine", "Can record routine as done"),
                    ("pause_routine", "Can pause, resume and set routine"),
                    ("run_routine", "Can have routine run now"),
                ],
                "proxy": True,
                "default_permissions": ("view",),
                "indexes": [],
                "constraints": [],
            },
            bases=("once.completion",),
        ),
    ]
