"""Who may register as which board. Pure: a registration and what is known go in, a verdict comes out.

A MAC address is a name, not a proof. The proof is the boot's secret, which only the board at that network address got
with its boot files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wire.payloads import ErrorInfo, Registration, RegistrationAnswer
from wire.phases import ErrorKind

Prove = Callable[[Registration, str], str | None]
"""`(registration, board) -> what is wrong with its proof`, None when it proves itself."""


@dataclass(frozen=True, slots=True)
class KnownBoard:
    """What the settings say of a board's identity."""

    macs: frozenset[str] = field(default_factory=frozenset)
    trust_mac: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer` is None when another agent is to answer. `board` is the board of ours that is claimed, if any."""

    answer: RegistrationAnswer | None
    board: str | None = None


def judge(request: Registration, agent: str, boards: Mapping[str, KnownBoard], prove: Prove) -> Verdict:
    """Decide on a registration that this agent heard."""
    board = request.board or _owner_of_mac(request, boards)
    if board is None or board not in boards:
        if request.agent != agent:
            return Verdict(None)
        known = "it names no board, and no board has its MAC" if board is None else f"there is no board {board}"
        return _refusal(
            request,
            agent,
            None,
            ErrorKind.UNKNOWN_BOARD,
            f"{known}; accept it with 'boardhand join accept {request.mac}', or write a table [boards.NAME] with "
            f'macs = ["{request.mac}"] in the agent\'s settings',
        )
    if request.agent not in {agent, None}:
        return Verdict(None)
    problem = _identity_problem(request, board, boards[board], prove)
    if problem is not None:
        return _refusal(request, agent, board, ErrorKind.NOT_ALLOWED, problem)
    return Verdict(RegistrationAnswer(ok=True, boot_id=request.boot_id, board=board, agent=agent), board)


def _owner_of_mac(request: Registration, boards: Mapping[str, KnownBoard]) -> str | None:
    return next((name for name, board in boards.items() if request.mac in board.macs), None)


def _identity_problem(request: Registration, board: str, known: KnownBoard, prove: Prove) -> str | None:
    if known.macs and request.mac not in known.macs:
        return f"MAC {request.mac} is not one of board {board}"
    if request.proof is None:
        if known.trust_mac and request.mac in known.macs:
            return None
        return (
            f"no proof that this boot is board {board}: boot it from this agent, or set trust_mac in [boards.{board}]"
        )
    return prove(request, board)


def _refusal(request: Registration, agent: str, board: str | None, kind: ErrorKind, message: str) -> Verdict:
    answer = RegistrationAnswer(
        ok=False, boot_id=request.boot_id, agent=agent, error=ErrorInfo(kind=kind, message=message)
    )
    return Verdict(answer, board)
