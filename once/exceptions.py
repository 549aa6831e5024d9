"""The family of exceptions that this package raises."""

from django.core.exceptions import ImproperlyConfigured

__all__ = [
    "AttemptLost",
    "BatchError",
    "BodyError",
    "CannotFence",
    "DatabaseUnavailable",
    "Held",
    "InsideRun",
    "InsideTransaction",
    "LockLost",
    "MigrationFailed",
    "NoConnection",
    "NotDone",
    "OnceError",
    "Paused",
    "RoutineError",
    "RoutineFailed",
    "ThrottleError",
    "TimedOut",
    "UnknownRoutine",
    "ValueUnknown",
]


class OnceError(Exception):
    """Anything that this package raises."""


class RoutineError(OnceError, ImproperlyConfigured):
    """A routine is declared in a way that cannot work."""


class ValueUnknown(OnceError, ImproperlyConfigured):
    """The value of a routine's state cannot be had, since the function that returns it raised."""


class UnknownRoutine(OnceError):
    """A name matches no registered routine."""


class InsideTransaction(OnceError):
    """Routines were to run where their record would not be committed, or could be undone."""


class InsideRun(OnceError):
    """A run was started from within itself, and would have waited for itself."""


class DatabaseUnavailable(OnceError):
    """A database could not be reached for longer than the caller's patience."""


class TimedOut(OnceError):
    """The deadline passed while another process had what is waited for."""


class LockLost(OnceError):
    """The lock is no longer proven to be this process's own: another process may start."""


class NoConnection(LockLost):
    """The lock gave itself up, because the work beside it had no connection or no answer."""


class AttemptLost(OnceError):
    """Another process took over: this attempt may not commit any more."""


class CannotFence(OnceError):
    """A predecessor's transaction is still open and could not be ended yet."""


class BodyError(OnceError):
    """A routine's body broke the transaction that its record belongs to."""


class MigrationFailed(OnceError):
    """A migration cannot be applied or undone. What it raised is the cause of this exception."""


class RoutineFailed(OnceError):
    """A routine failed, during start-up or before a migration that needs it."""


class NotDone(OnceError):
    """A routine is not done: another process runs it, it is blocked, or items of it failed."""


class BatchError(OnceError):
    """The items of a routine cannot be gone through in batches."""


class ThrottleError(OnceError):
    """A throttle of a routine cannot say how long the next batch is to wait."""


class Held(OnceError):
    """A routine may not be tried a second time by itself, and waits for a person's decision."""


class Paused(Held):
    """A person paused a routine, until a person resumes it."""
