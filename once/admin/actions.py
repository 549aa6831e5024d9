"""Words and forms for what a person may decide about routines, or want of them."""

from typing import Any, NamedTuple

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.utils.translation import gettext, gettext_noop
from django.utils.translation import gettext_lazy as _

from once import conf
from once.models import Trigger, Wish
from once.record import wishes
from once.status.decisions import Decision


class Action(NamedTuple):
    """The words for a decision, in English: on its button, above its confirmation, and after it."""

    label: str
    introduction: str
    permission: str
    done: str = ""  # of a wish, whose recording says what follows


ACTIONS: dict[Decision, Action] = {
    Trigger.RESET: Action(
        gettext_noop("Reset: have it run again"),
        gettext_noop("These run again. What comes after them does not."),
        "reset_routine",
        gettext_noop("“{}” is pending again."),
    ),
    Trigger.FAKE: Action(
        gettext_noop("Record as done without running"),
        gettext_noop("These are recorded as done, although they did not run here."),
        "fake_routine",
        gettext_noop("“{}” is recorded as done."),
    ),
    Wish.Kind.RUN: Action(
        gettext_noop("Run now"),
        gettext_noop(
            "These are tried within seconds by `manage.py once work`, each once, although they "
            "failed lately."
        ),
        "run_routine",
    ),
    Wish.Kind.PAUSE: Action(
        gettext_noop("Pause"),
        gettext_noop(
            "These stop: a batched routine after the batch in hand, any other one after its body. "
            "Servers start without them, and no process takes them up until they are resumed."
        ),
        "pause_routine",
    ),
    Wish.Kind.RESUME: Action(
        gettext_noop("Resume"),
        gettext_noop("These are no longer paused."),
        "pause_routine",
    ),
    Wish.Kind.SET: Action(
        gettext_noop("Set the pace"),
        gettext_noop(
            "These have another pace from the next batch on, until their version is raised. An "
            "empty field leaves a value as it is."
        ),
        "pause_routine",
    ),
}


class ReasonForm(forms.Form):
    """The form for the reason of a decision."""

    reason = forms.CharField(
        label=_("Reason"),
        help_text=_("Goes into the history, with your name."),
        max_length=1000,
        widget=AdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
    )


class PaceForm(ReasonForm):
    """The form for another pace of batches, as ``once set`` takes it."""

    batch_size = forms.IntegerField(
        label=_("Batch size"), required=False, min_value=1, max_value=2**31 - 1
    )
    rest = forms.FloatField(
        label=_("Rest"),
        required=False,
        min_value=0,
        max_value=conf.DAY,
        help_text=_("Seconds between batches."),
    )
    batch_seconds = forms.FloatField(
        label=_("Batch seconds"),
        required=False,
        min_value=0.001,
        max_value=conf.DAY,
        help_text=_("Seconds that a batch should take."),
    )

    as_declared = forms.BooleanField(required=False, label=_("All as the code has it"))

    def clean(self) -> dict[str, Any]:
        is_set = any(self.cleaned_data.get(name) is not None for name in wishes.VALUES)
        if is_set == bool(self.cleaned_data.get("as_declared")):
            raise forms.ValidationError(gettext("Fill in values, or have all as the code has it."))
        return self.cleaned_data
