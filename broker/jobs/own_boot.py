"""Jobs that bring their own boot: the phase between the lease and the offer, and the way back afterwards.

The board's agent is asked for the boot, the board is switched on or cycled, and only a boot that is not the one before
gets the offer. When the lease has ended, the agent is asked for the standing profile again and the board is switched
off; until that was seen it takes no other job.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from broker.before_job import BeforeJob
from broker.farm_view import BoardPicture, FarmView
from broker.happenings import Action, AgentAnswered, Moment, Note, SaveOtherBoot, SendPower, SendRequest
from broker.jobs.life import JobEvent
from broker.ledger import BootStage, BootWait, Held, Ledger
from wire.payloads import PowerResult, Response
from wire.phases import ErrorKind, PowerAction, Purpose

# The agent may be fetching a kernel for the first time; asking again is harmless and finds one that was restarted.
ASK_AGAIN_S = 15.0
DIAGNOSIS_S = 5.0
BACK_AGAIN_S = 30.0
MOST_LETTERS = 1000
# The job is wrong, not the board or its agent: no other board would do better.
_WRONG_JOB = {ErrorKind.BAD_REQUEST}
# Another agent may have it; this board is as good as before.
_NOT_HERE = {ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN_BOARD, ErrorKind.CONFIGURATION, ErrorKind.NOT_ALLOWED}
_NEVER = float("inf")


class Power(Protocol):
    """Power commands outside of leases: `IdlePolicy`."""

    def pending(self, board: str) -> PowerAction | None:
        """The command that is under way for this board."""

    def send(self, board: str, power: PowerAction, now: Moment) -> SendPower:
        """Command a board that nobody has leased."""


@dataclass(slots=True)
class JobBoots:
    """Changes leases through the ledger, as `LeaseWatch` does."""

    ledger: Ledger
    farm: FarmView
    gate: BeforeJob
    _count: int = 0
    _backs: dict[str, str] = field(default_factory=dict)
    """Transactions by which boards were asked back, and their boards."""
    _is_back: set[str] = field(default_factory=set)
    """Boards whose next boot is their standing one again."""
    _asked_before: set[str] = field(default_factory=set)
    """Boards whose agent was asked more than once: a refusal is not the whole of its word."""

    def restore(self, boards: Iterable[str]) -> None:
        """Boards that may have been in a job's boot when our predecessor ended."""
        self.ledger.other_boots = dict.fromkeys(boards, 0.0)

    # --- the boot phase --------------------------------------------------------------------------------------

    def begin(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        """The lease was just taken: ask the agent for the boot."""
        job = held.job
        held.wake_until = now.mono + self.ledger.policy.wake_timeout_s
        job.step(JobEvent.WAKE)
        job.reason = f"{held.board} is to boot {job.spec.boot}"
        self.ledger.save(job)
        self._ask(held, picture, now)

    def _ask(self, held: Held, picture: BoardPicture, now: Moment, *, careful: bool = False) -> None:
        self._count += 1
        name = f"boot-{held.token}-{int(now.wall.timestamp() * 1000)}-{self._count}"
        held.boot = BootWait(BootStage.ASKED, name, picture.boot_id, now.mono + ASK_AGAIN_S, _NEVER, careful=careful)
        self.ledger.other_boots[held.board] = now.mono
        self._is_back.discard(held.board)
        self.ledger.out.append(SaveOtherBoot(held.board, on=True))
        self._send_boot(held, held.boot, picture, now)
        self.ledger.tell(held, f"agent {picture.agent} was asked to boot {held.job.spec.boot}", now)

    def _send_boot(self, held: Held, wait: BootWait, picture: BoardPicture, now: Moment) -> None:
        boot = held.job.spec.boot
        if boot is None or picture.agent is None:
            return
        data: dict[str, object] = {"board": held.board, "token": held.token, **boot.request()}
        expires = now.after(self.ledger.policy.power_timeout_s)
        self.ledger.out.append(SendRequest(picture.agent, "boot", wait.id, data, expires))

    def look(self, held: Held, picture: BoardPicture, now: Moment) -> None:
        """What `LeaseWatch` does for a board that comes up, for one that boots for a job."""
        policy, wait = self.ledger.policy, held.boot
        if wait is None:
            # Our predecessor ended in the middle. What it had seen is not known: boot once more.
            self._asked_before.add(held.board)
            self._ask(held, picture, now, careful=True)
        elif wait.stage is BootStage.DIAGNOSIS:
            if now.mono >= wait.deadline:
                self.ledger.fault(held, wait.why, now)
        elif wait.up and picture.ready and picture.boot_id != wait.before:
            self.ledger.tell(held, f"{held.board} has registered in boot {picture.boot_id}", now)
            self.gate.offer(held, picture, now)
        elif now.mono >= held.wake_until:
            seen = f"it is {picture.phase.value}" if picture.phase is not None else "its agent is away"
            self._failed(held, wait, f"did not register in a new boot in {policy.wake_timeout_s:g} s: {seen}", now)
        elif not picture.agent_online:
            held.missing_since = now.mono if held.missing_since is None else held.missing_since
            if now.mono - held.missing_since >= policy.lost_grace_s:
                self.ledger.fault(held, "its agent went away while it booted", now)
        else:
            held.missing_since = None
            self._repeat(held, wait, picture, now)

    def _repeat(self, held: Held, wait: BootWait, picture: BoardPicture, now: Moment) -> None:
        if now.mono < wait.ask_again:
            return
        if wait.stage is BootStage.ASKED:
            wait.ask_again = now.mono + ASK_AGAIN_S
            self._asked_before.add(held.board)
            self._send_boot(held, wait, picture, now)
        else:
            self._switch(held, wait, picture, now)

    def _switch(self, held: Held, wait: BootWait, picture: BoardPicture, now: Moment) -> None:
        """Switch it on, or off and on. Repeated with the same id, which an agent does once."""
        if wait.stage is BootStage.ASKED:
            wait.stage = BootStage.SWITCHED
            wait.before = picture.boot_id
            held.commanded = True
        wait.ask_again = now.mono + self.ledger.policy.power_timeout_s
        power = PowerAction.ON if picture.asleep else PowerAction.CYCLE
        expires = now.after(self.ledger.policy.power_timeout_s)
        self.ledger.out.append(SendPower(held.board, power, wait.id, Purpose.WAKE, held.token, expires))
        self.ledger.tell(held, f"{held.board} is switched: {power.value}", now)

    def answered(self, answer: AgentAnswered, now: Moment) -> None:
        """An agent's answer, perhaps to somebody else."""
        name = answer.response.transaction
        if name is None:
            return
        board = self._backs.pop(name, None)
        if board is not None:
            self._back_answered(board, answer.response)
            return
        for held in list(self.ledger.held.values()):
            if held.boot is not None and held.boot.id == name and self.farm.board(held.board).agent == answer.agent:
                self._boot_answered(held, held.boot, answer, now)
                return

    def _boot_answered(self, held: Held, wait: BootWait, answer: AgentAnswered, now: Moment) -> None:
        response = answer.response
        if answer.verb == "netboot" and wait.stage is BootStage.DIAGNOSIS:
            self.ledger.fault(held, f"{wait.why}; {diagnosis(response) or 'its agent saw nothing of it'}", now)
        elif answer.verb != "boot" or wait.stage is not BootStage.ASKED:
            return
        elif response.ok:
            self._switch(held, wait, self.farm.board(held.board), now)
        else:
            self._refused(held, response, now)

    def _refused(self, held: Held, response: Response, now: Moment) -> None:
        # Nothing was chosen, and the board goes on as it was; unless an earlier question, its answer lost, was obeyed.
        if held.board not in self._asked_before:
            self._forget(held.board)
        kind = response.error.kind if response.error is not None else ErrorKind.INTERNAL
        told = response.error.message[:MOST_LETTERS] if response.error is not None else "no reason given"
        why = f"its agent cannot boot {held.job.spec.boot}: {told}"
        if kind in _WRONG_JOB:
            self.ledger.give_back(held, why, now)
        else:
            self.ledger.fault(held, why, now, bench=kind not in _NOT_HERE)

    def power_reported(self, board: str, result: PowerResult, now: Moment) -> bool:
        """A power result; whether it was that of a job's boot."""
        held = self.ledger.held.get(board)
        if held is None or held.boot is None or held.boot.id != result.id:
            return False
        wait = held.boot
        if wait.stage is not BootStage.SWITCHED:
            return True
        picture = self.farm.board(board)
        if result.ok and wait.careful and picture.boot_id != wait.before:
            # It was up with our boot before, which used it up.
            self._ask(held, picture, now)
        elif result.ok:
            wait.ask_again, wait.done = _NEVER, True
        else:
            why = result.error.message if result.error is not None else "the agent gave no reason"
            self.ledger.fault(held, f"could not be switched: {why}", now)
        return True

    def _failed(self, held: Held, wait: BootWait, why: str, now: Moment) -> None:
        picture = self.farm.board(held.board)
        if picture.agent is None or not picture.agent_online:
            self.ledger.fault(held, why, now)
            return
        wait.stage, wait.why, wait.deadline = BootStage.DIAGNOSIS, why, now.mono + DIAGNOSIS_S
        data: dict[str, object] = {"board": held.board, "boots": 1}
        self.ledger.out.append(SendRequest(picture.agent, "netboot", wait.id, data, now.after(DIAGNOSIS_S)))

    # --- the way back ----------------------------------------------------------------------------------------

    def tidy(self, power: Power, now: Moment) -> list[Action]:
        """Bring boards back to their standing profile whose lease has ended."""
        actions: list[Action] = []
        for board, due in list(self.ledger.other_boots.items()):
            picture = self.farm.board(board)
            if board in self.ledger.held or picture.agent is None or not picture.agent_online:
                continue
            if board in self._is_back and picture.asleep:
                self._forget(board)
                if picture.labels.get("sleep") is False and power.pending(board) is None:
                    actions.append(power.send(board, PowerAction.ON, now))
            elif now.mono < due:
                continue
            elif board not in self._is_back:
                self.ledger.other_boots[board] = now.mono + BACK_AGAIN_S
                actions.append(self._ask_back(board, picture.agent, now))
            elif picture.out_of_service is None and power.pending(board) is None:
                self.ledger.other_boots[board] = now.mono + self.ledger.policy.power_timeout_s
                actions.append(power.send(board, PowerAction.OFF, now))
        return actions

    def _ask_back(self, board: str, agent: str, now: Moment) -> SendRequest:
        self._count += 1
        name = f"back-{int(now.wall.timestamp() * 1000)}-{self._count}"
        self._backs = {known: other for known, other in self._backs.items() if other != board}
        self._backs[name] = board
        return SendRequest(agent, "boot", name, {"board": board}, now.after(BACK_AGAIN_S))

    def _back_answered(self, board: str, response: Response) -> None:
        if board not in self.ledger.other_boots:
            return
        error = response.error
        if response.ok or (error is not None and error.kind in {ErrorKind.NOT_FOUND, ErrorKind.UNKNOWN_BOARD}):
            # Where the agent serves no boots at all, there is nothing to go back from but the power.
            self._is_back.add(board)
            self.ledger.other_boots[board] = 0.0
        else:
            told = error.message if error is not None else "no reason given"
            self.ledger.out.append(Note(f"{board} could not be put back to its standing profile: {told}"))

    def _forget(self, board: str) -> None:
        if self.ledger.other_boots.pop(board, None) is not None:
            self.ledger.out.append(SaveOtherBoot(board, on=False))
        self._is_back.discard(board)
        self._asked_before.discard(board)


def diagnosis(response: Response) -> str:
    """What an agent's answer to `netboot` says of the last boot, in one line; empty where it says nothing."""
    boots = response.data.get("boots")
    first = boots[0] if isinstance(boots, list) and boots else None
    found = first.get("diagnosis") if isinstance(first, dict) else None
    if not isinstance(found, dict):
        return ""
    parts = [str(found.get("what") or "")]
    for key, lead in (("evidence", ""), ("check", "look at: ")):
        items = found.get(key)
        if isinstance(items, list) and items:
            parts.append(lead + str(items[0]))
    return "; ".join(part for part in parts if part)[:MOST_LETTERS]
