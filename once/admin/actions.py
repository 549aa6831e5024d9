"""Words and forms for what a person may decide about routines, or want of them."""

from typing import Any, NamedTuple

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget

from once import conf
from once.models import Trigger, Wish
from once.record import wishes
from once.status.decisions import Decision


class Action(NamedTuple):
    """The words for a decision: on its button, above its confirmation, and once it is done."""

    label: str
    introduction: str
    done: str
    permission: str


ACTIONS: dict[Decision, Action] = {
    Trigger.RESET: Action(
        "Reset: have it run again",
        "These run again. What comes after them does not.",
        "“{}” is pending again.",
        "reset_routine",
    ),
    Trigger.FAKE: Action(
        "Record as done without running",
        "These are recorded as done, although they did not run here.",
        "“{}” is recorded as done.",
        "fake_routine",
    ),
    Wish.Kind.RUN: Action(
        "Run now",
        "These are tried within seconds by `manage.py once work`, each once, although they failed "
        "lately.",
        "{}",
        "run_routine",
    ),
    Wish.Kind.PAUSE: Action(
        "Pause",
        "These stop: a batched routine after the batch in hand, any other one after its body. "
        "Servers start without them, and no process takes them up until they are resumed.",
        "{}",
        "pause_routine",
    ),
    Wish.Kind.RESUME: Action(
        "Resume",
        "These are no longer paused.",
        "{}",
        "pause_routine",
    ),
    Wish.Kind.SET: Action(
        "Set the pace",
        "These have another pace from the next batch on, until their version is raised. An empty "
        "field leaves a value as it is.",
        "{}",
        "pause_routine",
    ),
}


class ReasonForm(forms.Form):
    """The form for the reason of a decision."""

    reason = forms.CharField(
        help_text="Goes into the history, with your name.",
        max_length=1000,
        widget=AdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
    )


class PaceForm(ReasonForm):
    """The form for another pace of batches, as ``once set`` takes it."""

    batch_size = forms.IntegerField(required=False, min_value=1, max_value=2**31 - 1)
    rest = forms.FloatField(
        required=False, min_value=0, max_value=conf.DAY, help_text="Seconds between batches."
    )
    batch_seconds = forms.FloatField(
        required=False,
        min_value=0.001,
        max_value=conf.DAY,
        help_text="Seconds that a batch should take.",
    )

    as_declared = forms.BooleanField(required=False, label="All as the code has it")

    def clean(self) -> dict[str, Any]:
        is_set = any(self.cleaned_data.get(name) is not None for name in wishes.VALUES)
        if is_set == bool(self.cleaned_data.get("as_declared")):
            raise forms.ValidationError("Fill in values, or have all as the code has it.")
        return self.cleaned_data
