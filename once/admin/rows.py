"""Rows of the admin's list of routines."""

from dataclasses import dataclass
from functools import cached_property

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from once.models import Trigger, Wish
from once.status import text
from once.status.decisions import Decision, refusal
from once.status.state import RoutineState, Status


@dataclass(frozen=True)
class Row:
    """A routine on the list."""

    status: Status
    #: True if starting servers run it.
    runs_at_startup: bool

    @property
    def id(self) -> str:
        """Its database and its name, for the address of a page."""
        return f"{self.status.database or ''}:{self.status.name}"

    @property
    def version(self) -> int | None:
        return self.status.version or self.status.recorded_version

    @property
    def began(self) -> str:
        """Time at which the last attempt began, or else the routine was completed."""
        return text.moment(self.status.started_at or self.status.completed_at)

    @property
    def lasted(self) -> str:
        return text.duration(self.status.duration_seconds)

    @property
    def per(self) -> str:
        return text.per(self.status)

    @property
    def progress(self) -> str:
        waits = f", waits: {self.status.throttled}" if self.status.throttled else ""
        return text.progress(*self.status.progress) + waits if self.status.progress else ""

    @property
    def without_body(self) -> str:
        """Words for a completion without a call of its body, or nothing."""
        is_completed = self.status.state is RoutineState.COMPLETED
        return text.without_body(self.status) if is_completed else ""

    @cached_property
    def next_step(self) -> SafeString:
        return marked(text.next_step(self.status, runs_at_startup=self.runs_at_startup))

    def refusal(self, decision: Decision) -> SafeString:
        """Return why a decision about it cannot be carried out, or nothing."""
        refused = refusal(decision, self.status)
        return marked(refused.message if refused else "")

    def consequence(self, decision: Decision) -> SafeString:
        """Return what comes of a decision, for the person that is asked to confirm it."""
        if isinstance(decision, Wish.Kind):
            return marked("")
        if decision is Trigger.FAKE:
            return marked("Is recorded as done. Its function is not called.")
        parts = ["It goes on where it stands, under the same key."]
        if self.status.state is RoutineState.COMPLETED:
            parts = ["It ran. It runs again, from the start, under a new key."]
            if self.without_body:
                parts = [f"Its function was not called: {self.without_body}. Now it will be."]
        if self.status.kind == "external" or self.status.state is RoutineState.HELD:
            parts.append("What it did outside of the database may be done twice.")
        if self.status.kind == "call":
            parts.append("Call it again by `manage.py once call`.")
        return marked(" ".join(parts))


def marked(sentence: str) -> SafeString:
    """Return a text whose commands, between backticks, are shown as such."""
    parts = enumerate(sentence.split("`"))
    marks = ([format_html("<code>{}</code>", part) if n % 2 else part] for n, part in parts)
    return format_html_join("", "{}", marks)
