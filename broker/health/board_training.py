"""Cold boots of a board that nobody trusts yet: off, on, and up again, one at a time. Pure: no I/O, no clock."""

from dataclasses import dataclass, field

from broker.happenings import Moment
from broker.matching.dispatch import Dispatch
from wire.phases import Phase, PowerAction


@dataclass(frozen=True, slots=True)
class CameOf:
    """What came of one cold boot: how long it took, in seconds, or why it failed."""

    took_s: float | None
    why: str = ""


@dataclass(slots=True)
class _Step:
    power: PowerAction
    began: float
    deadline: float
    before: str | None = None
    """The boot that the board was in, or was last."""


@dataclass(slots=True)
class BoardTraining:
    """Each board is in one step, of being switched off or of coming up."""

    dispatch: Dispatch
    _steps: dict[str, _Step] = field(default_factory=dict)

    def drop(self, board: str) -> None:
        """It counts as not begun."""
        self._steps.pop(board, None)

    def look(self, board: str, now: Moment, *, again: bool) -> CameOf | None:
        """Go on; `again`: the boot before failed, so the board is not waited for as it is."""
        dispatch = self.dispatch
        picture, ledger = dispatch.farm.board(board), dispatch.ledger
        if not picture.agent_online or board in ledger.held or board in ledger.people or board in ledger.other_boots:
            self.drop(board)
            return None
        step = self._steps.get(board)
        if step is None:
            self._begin(board, now, again=again)
            return None
        if step.power is PowerAction.OFF:
            if picture.asleep:
                self.drop(board)
            elif now.mono >= step.deadline:
                self.drop(board)
                return CameOf(None, "could not be switched off")
            return None
        return self._coming_up(board, step, now)

    def _begin(self, board: str, now: Moment, *, again: bool) -> None:
        dispatch = self.dispatch
        picture, policy = dispatch.farm.board(board), dispatch.ledger.policy
        if picture.out_of_service is not None or dispatch.idle.pending(board) is not None:
            return
        if picture.asleep:
            if dispatch.room.refusal(picture.labels, now.mono) is not None:
                return
            dispatch.room.woke(board, picture.labels, now.mono)
            deadline = now.mono + policy.wake_timeout_s
            self._steps[board] = _Step(PowerAction.ON, now.mono, deadline, picture.boot_id)
        elif picture.ready or again:
            self._steps[board] = _Step(PowerAction.OFF, now.mono, now.mono + 2 * policy.power_timeout_s)
        else:
            return
        dispatch.ledger.out.append(dispatch.idle.send(board, self._steps[board].power, now))
        dispatch.touched.add(board)

    def _coming_up(self, board: str, step: _Step, now: Moment) -> CameOf | None:
        picture, policy = self.dispatch.farm.board(board), self.dispatch.ledger.policy
        if picture.ready and picture.boot_id != step.before:
            self.drop(board)
            return CameOf(now.mono - step.began)
        seen = f"it is {picture.phase.value}" if picture.phase is not None else "its agent says nothing of it"
        why = ""
        if picture.phase is Phase.FAULT:
            why = f"it went to fault: {picture.reason or 'no reason given'}"
        elif picture.asleep and now.mono - step.began >= policy.power_timeout_s:
            why = "it could not be switched on, or went off again"
        elif now.mono >= step.deadline:
            why = f"did not come up in {policy.wake_timeout_s:g} s: {seen}"
        if not why:
            return None
        self.drop(board)
        return CameOf(None, why)
