"""What may be done about a power command: pure checks, before anything is switched."""

import json
from dataclasses import dataclass, field
from datetime import datetime

from wire.payloads import ErrorInfo, Lease, PayloadError, PowerCommand, decode, parse_power_command
from wire.phases import ErrorKind

FALLBACK_ID_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Refused:
    """The command is answered with this error and changes nothing."""

    error: ErrorInfo
    id: str | None = None


@dataclass(slots=True)
class LeaseBook:
    """The leases as the broker said them, by board."""

    leases: dict[str, Lease] = field(default_factory=dict)
    remembered: dict[str, Lease] = field(default_factory=dict)
    """What was last heard, while the MQTT server is away: one may have been released meanwhile, none may be new."""

    def heard(self, board: str, payload: bytes) -> None:
        """Take a message on `board/<board>/lease`.

        Raises:
            PayloadError: it is no lease.
        """
        self.remembered.pop(board, None)
        if payload:
            self.leases[board] = decode(Lease, payload)
        else:
            self.leases.pop(board, None)

    def out_of_touch(self) -> None:
        """The MQTT server is away. Leases are retained, so those that still hold come again; one that was released
        meanwhile does not."""
        self.remembered |= self.leases
        self.leases = {}

    def forget(self, board: str) -> None:
        """Its lease is not listened to any more."""
        self.leases.pop(board, None)
        self.remembered.pop(board, None)

    def in_touch(self) -> None:
        """The MQTT server is back and has said what it retains."""
        self.remembered = {}

    def held(self, board: str, now: datetime) -> Lease | None:
        """The lease that binds the board now; one that ran out binds nobody, even if its broker is gone."""
        lease = self.leases.get(board) or self.remembered.get(board)
        return lease if lease is not None and lease.expires > now else None


def judge(
    board: str, payload: bytes, *, now: datetime, leases: LeaseBook, force_allowed: bool
) -> PowerCommand | Refused:
    """Decide whether a message on `board/<board>/power/set` is a command to carry out."""
    try:
        command = parse_power_command(payload)
    except PayloadError as error:
        info = ErrorInfo(
            kind=ErrorKind.BAD_REQUEST, message=f"board {board}: {error}"[:4096], key=error.key[:256] or None
        )
        return Refused(info, _id_of(payload))
    if command.expires is not None and command.expires <= now:
        late_s = (now - command.expires).total_seconds()
        message = f"board {board}: the command expired {late_s:.1f} s ago; send it again if it is still wanted"
        return Refused(ErrorInfo(kind=ErrorKind.EXPIRED, message=message, key="expires"), command.id)
    force = command.force and force_allowed
    if not force and (problem := lease_problem(board, command.token, leases, now, force_allowed=force_allowed)):
        return Refused(problem, command.id)
    return command


def lease_problem(
    board: str, token: int | None, leases: LeaseBook, now: datetime, *, force_allowed: bool = False
) -> ErrorInfo | None:
    """Why an order with this token, or without one, may not be carried out on the board now; None where it may."""
    lease = leases.held(board, now)
    if lease is not None and token != lease.token:
        force = "force it" if force_allowed else "have force_allowed set in the agent's settings"
        message = (
            f"board {board}: leased by {lease.holder} until {lease.expires.isoformat(timespec='seconds')}; "
            f"send the lease's token, wait, or {force}"
        )
        return ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=message, key="token")
    if lease is None and token is not None:
        message = f"board {board}: nobody holds a lease, so token {token} is an old one"
        return ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=message, key="token")
    return None


def _id_of(payload: bytes) -> str | None:
    """The id of a command that is wrong elsewhere, so that its sender finds the answer."""
    try:
        found = json.loads(payload).get("id")
    except (ValueError, AttributeError, RecursionError):
        return None
    if isinstance(found, str) and 0 < len(found) <= FALLBACK_ID_CHARACTERS and found.isprintable() and found.isascii():
        return found if all(c.isalnum() or c in "_.:-" for c in found) else None
    return None
