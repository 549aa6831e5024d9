"""Decisions of a person about routines: confirmed with a reason, then carried out."""

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.widgets import AdminTextareaWidget
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import Error, connections
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext

from once.admin.pages import ACTIONS, ListPage
from once.admin.rows import Row, marked
from once.exceptions import OnceError
from once.models import Routine, Trigger
from once.results import Outcome, Result
from once.status import decisions
from once.text import one_line

__all__ = ["DecidingListPage"]

_INTRODUCTIONS = {
    Trigger.RESET: "These run again, the next time that somebody starts them: by `manage.py once "
    "run` or, where servers run them, as one starts. What comes after them does not run again.",
    Trigger.FAKE: "These are recorded as done, although they did not run here.",
}
_DONE = {
    Trigger.RESET: "“{}” is pending again.",
    Trigger.FAKE: "“{}” is recorded as done.",
}


class ReasonForm(forms.Form):
    """The form for the reason of a decision."""

    reason = forms.CharField(
        help_text="Goes into the history, with your name.",
        max_length=1000,
        widget=AdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
    )


class DecidingListPage(ListPage):
    """The list of routines, and by POST a decision about some."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Ask for confirmation and a reason, or carry out what was confirmed."""
        action = request.POST.get("action", "")
        decision = next((each for each in ACTIONS if each == action), None)
        if decision is None:
            self.message(gettext("No action selected."))
            return HttpResponseRedirect(request.get_full_path())
        if decision not in self.permitted():
            raise PermissionDenied
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        chosen = [row for row in self.rows(connections) if row.id in ids]
        if not chosen:
            self.message("No routine selected.")
            return HttpResponseRedirect(request.get_full_path())
        is_confirmed = "post" in request.POST
        form = ReasonForm(request.POST if is_confirmed else None)
        if is_confirmed and form.is_valid():
            # Because a person confirms what the page said, what it said comes with the decision.
            seen = dict(zip(ids, request.POST.getlist("seen"), strict=False))
            for row in chosen:
                text, level = self._carry_out(
                    decision, row, seen.get(row.id), form.cleaned_data["reason"]
                )
                self.message(text, level)
            return self.to_list()
        return self.page(
            "confirm.html",
            title=gettext("Are you sure?"),
            decision=decision.value,
            action=ACTIONS[decision],
            introduction=marked(_INTRODUCTIONS[decision]),
            due=[(row, row.consequence(decision)) for row in chosen if not row.refusal(decision)],
            refused=[row.refusal(decision) for row in chosen if row.refusal(decision)],
            form=form,
        )

    def _carry_out(
        self, decision: Trigger, row: Row, seen: str | None, reason: str
    ) -> tuple[str, int]:
        """Do it, and return what became of it with the level of that message."""
        status = row.status
        refused = decisions.refusal(decision, status)
        if refused:
            return f"Left as it is: {refused.message}", messages.WARNING
        if status.state != seen:
            now = f"{status.name} is {status.state} by now. Look again, and decide then."
            return f"Left as it is: {now}", messages.WARNING
        user = self.request.user.get_username()
        try:
            result = decisions.carry_out(decision, status, self.registry, user=user, reason=reason)
        except (OnceError, ImproperlyConfigured, Error, OSError) as error:
            return f"Left as it is: {status.name}: {one_line(error)}", messages.ERROR
        if result.outcome is not Outcome.RAN:
            return f"Left as it is: {_why_left(result)}", messages.WARNING
        try:
            self._log(row, f"{ACTIONS[decision]}. {reason}")
        except Error as error:  # done all the same, and in the routine's own history
            self.message(f"Done, but missing in the admin's log: {one_line(error)}")
        return _DONE[decision].format(status.name), messages.SUCCESS

    def _log(self, row: Row, message: str) -> None:
        kind = ContentType.objects.get_for_model(Routine, for_concrete_model=False)
        LogEntry.objects.create(
            user_id=str(self.request.user.pk),
            content_type_id=kind.pk,
            object_id=row.id,
            object_repr=row.status.name[:200],
            action_flag=CHANGE,
            change_message=message,
        )


def _why_left(result: Result) -> str:
    """Return why a decision came to nothing."""
    name = result.routine.name
    if not result.message:
        return f"{name} was done by another process meanwhile."
    return result.message if name in result.message else f"{name}: {result.message}"
