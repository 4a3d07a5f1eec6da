"""What a running farm knows of its boards, for a recorded day: labels from the broker, watts from the agents."""

import sys
from typing import Any

from broker.sleep.day_recording import BOOT_W, BUSY_W, IDLE_W, OFF_W, DayBoard, Watts
from cli.agent_requests import AgentsQuestion
from cli.energy import VERB
from cli.exits import CliError
from cli.requests import ANSWER_TIMEOUT_S, ask_broker, unreadable
from cli.session import Session
from cli.target import Target
from wire.energy import BoardEnergy, EnergyReport, EnergyState

S_PER_H = 3600.0
MEASURED_ENOUGH_S = 60.0
"""Below this an average says little."""


def boards_of_farm(target: Target, since: float | str) -> dict[str, DayBoard]:
    """Boards by name; none, and a word on standard error, where the farm does not answer."""
    try:
        boards = _boards(target)
    except CliError as error:
        print(f"boardhand: boards are taken without labels and watts: {error}", file=sys.stderr)
        return {}
    watts = _watts(target, since)
    return {name: board.model_copy(update={"watts": watts.get(name, Watts())}) for name, board in boards.items()}


def _boards(target: Target) -> dict[str, DayBoard]:
    found: dict[str, DayBoard] = {}
    after: dict[str, object] = {}
    while True:
        answer = ask_broker(target, "boards", after, timeout_s=ANSWER_TIMEOUT_S, patient=False)
        try:
            made = [DayBoard(name=line["board"], labels=line.get("labels", {})) for line in answer["boards"]]
        except (KeyError, TypeError, AttributeError, ValueError):
            raise unreadable("list of boards", answer) from None
        found |= {board.name: board for board in made}
        if not answer.get("more") or not made:
            return found
        after = {"after": made[-1].name}


def _watts(target: Target, since: float | str) -> dict[str, Watts]:
    def goes_on(data: dict[str, Any]) -> str | None:
        report = EnergyReport.model_validate(data, strict=False)
        return report.next if report.boards else None

    try:
        with Session(target) as session:
            agents = AgentsQuestion(session, VERB, {"since": since}, goes_on=goes_on).ask()
        reports = [EnergyReport.model_validate(answer, strict=False) for a in agents for answer in a.answers]
    except (CliError, ValueError) as error:
        print(f"boardhand: watts are guessed: {error}", file=sys.stderr)
        return {}
    return {board.board: _of(board) for report in reports for board in report.boards}


def _of(board: BoardEnergy) -> Watts:
    seen: dict[EnergyState, float] = {}
    for state in board.states:
        total_s, wh = state.measured_s, state.measured_wh
        if state.estimated_wh is not None:
            total_s, wh = total_s + state.unmeasured_s, wh + state.estimated_wh
        if total_s >= MEASURED_ENOUGH_S:
            seen[state.state] = min(wh / total_s * S_PER_H, 25_000.0)
    idle = seen.get(EnergyState.IDLE, IDLE_W)
    return Watts(
        idle=idle,
        busy=seen.get(EnergyState.BUSY, max(idle, BUSY_W) if EnergyState.IDLE not in seen else idle),
        boot=seen.get(EnergyState.COMING_UP, BOOT_W if EnergyState.IDLE not in seen else idle),
        off=seen.get(EnergyState.SLEEPING, seen.get(EnergyState.OFF, OFF_W)),
    )
