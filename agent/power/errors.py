"""What can go wrong with power, as a tree by what the caller does next.

Every error names the controller and, where there is one, the outlet, and says what to do. A driver raises these and
nothing else on purpose; whatever else comes out of a driver is a defect and becomes `InternalError`.
"""

from typing import ClassVar

from wire.payloads import MAX_TEXT, ErrorInfo
from wire.phases import ErrorKind


class PowerError(Exception):
    """Base of all power errors.

    Attributes:
        kind: what the caller does next, as told over MQTT.
        controller: the controller's name in the settings.
        outlet: the outlet as written in the feed, or None when the whole controller is meant.
        problem: what is wrong, as a clause.
        do: what a person can do about it, as an imperative clause; may be empty.
        board: the board that was being switched or read, once that is known.
        attempts: how often the command was sent when this ended it; 0 when it was not about a command.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(self, problem: str, *, controller: str, outlet: str | None = None, do: str = "") -> None:
        super().__init__(problem)
        self.controller = controller
        self.outlet = outlet
        self.problem = problem
        self.do = do
        self.board: str | None = None
        self.attempts = 0

    def __str__(self) -> str:
        where = self.controller if self.outlet is None else f"{self.controller}:{self.outlet}"
        board = f"{self.board}: " if self.board else ""
        attempt = f" (attempt {self.attempts})" if self.attempts else ""
        return f"{board}{where}: {self.problem}{attempt}" + (f"; {self.do}" if self.do else "")

    def info(self) -> ErrorInfo:
        """The error as it stands in a payload."""
        return ErrorInfo(kind=self.kind, message=str(self)[:MAX_TEXT])


class ConfigurationError(PowerError):
    """Settings and hardware disagree. Never retried: somebody has to mend one of them."""

    kind = ErrorKind.CONFIGURATION


class AuthenticationError(PowerError):
    """The device refused our credentials. Never retried: some devices lock an account after a few tries."""

    kind = ErrorKind.AUTHENTICATION


class UnreachableError(PowerError):
    """The device did not answer. What was asked for may or may not have happened."""

    kind = ErrorKind.UNREACHABLE


class RefusedError(PowerError):
    """The device answered no."""

    kind = ErrorKind.REFUSED


class NotVerifiedError(PowerError):
    """The device accepted the command, and its read-back still says otherwise at the family's deadline."""

    kind = ErrorKind.NOT_VERIFIED


class BusyError(PowerError):
    """Too many commands wait already; this one was not begun."""

    kind = ErrorKind.BUSY


class InterruptedOperationError(PowerError):
    """The agent was stopped while the operation was under way."""

    kind = ErrorKind.INTERRUPTED


class InternalError(PowerError):
    """A defect of ours."""

    kind = ErrorKind.INTERNAL
