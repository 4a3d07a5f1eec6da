"""Whether a board may be switched because a person asks for it. Pure."""

from broker.farm_view import BoardPicture
from broker.ledger import Ledger
from broker.sleep.idle_policy import IdlePolicy
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, Phase, Power, PowerAction


def why_not_switch(
    ledger: Ledger, idle: IdlePolicy, picture: BoardPicture, power: PowerAction, full: str | None
) -> ErrorInfo | None:
    """Why the board may not be switched, or None. `full` says why no board may be woken now."""
    board = picture.name
    kind, why = ErrorKind.BUSY, None
    if idle.pending(board) is not None:
        why = f"{board} is being switched: try again in a few seconds"
    elif power is PowerAction.ON and picture.power is not Power.ON and full is not None:
        why = f"{full}: try again later"
    elif (held := ledger.held.get(board)) is not None:
        kind, why = ErrorKind.NOT_ALLOWED, f"{board} is leased to {held.job.id}: cancel that first"
    elif (lease := ledger.people.get(board)) is not None:
        kind, why = ErrorKind.NOT_ALLOWED, f"{board} is reserved by {lease.holder}"
    elif picture.out_of_service is not None:
        kind, why = ErrorKind.NOT_ALLOWED, f"{board} is out of service: {picture.out_of_service}"
    elif power is PowerAction.OFF and (picture.work is not None or picture.phase is Phase.BUSY):
        kind, why = ErrorKind.NOT_ALLOWED, f"{board} is at work"
    return None if why is None else ErrorInfo(kind=kind, message=why)
