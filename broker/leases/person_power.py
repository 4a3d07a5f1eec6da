"""Power for people's leases: a board that sleeps is woken when it is reserved, and switched off when it is given back,
where they ask for it. Pure: no I/O, no clock."""

from dataclasses import dataclass

from broker.farm_view import BoardPicture, FarmView
from broker.happenings import Action, Moment, Note, SendPower
from broker.leases.happenings import SaveLease, TellLease
from broker.leases.lease import PersonLease
from broker.ledger import Ledger
from broker.matching.dispatch import Dispatch
from broker.sleep.idle_policy import IdlePolicy
from wire.payloads import PowerResult
from wire.phases import PowerAction, Purpose

MOST_TRIES = 3


def saved(lease: PersonLease) -> list[Action]:
    """A change of a lease, for the store and for those who listen."""
    return [SaveLease(lease), TellLease(lease.notice())]


def board_of(lease: PersonLease) -> str:
    """The board of a lease that has one."""
    if lease.board is None:
        raise LookupError(f"{lease.id} has no board")  # a defect of ours: only leases that are held are asked
    return lease.board


def reachable(picture: BoardPicture) -> bool:
    """Whether its agent is there and has spoken of it."""
    return picture.agent_online and picture.phase is not None


@dataclass(slots=True)
class PersonPower:
    """The commands, and what is waited for after them."""

    ledger: Ledger
    farm: FarmView
    dispatch: Dispatch
    idle: IdlePolicy

    def switch_on(self, lease: PersonLease, now: Moment) -> None:
        """Wake the board for its new holder."""
        lease.tries += 1
        lease.again = now.mono + self.ledger.policy.power_timeout_s
        expires = now.after(self.ledger.policy.power_timeout_s)
        board, command = board_of(lease), f"wake-{lease.id}"
        # The same id each time: an agent that has it does it once.
        self.ledger.out.append(SendPower(board, PowerAction.ON, command, Purpose.WAKE, lease.token, expires))

    def watch_waking(self, lease: PersonLease, now: Moment) -> None:
        """See whether the board came up, and switch it on again where the command was lost."""
        picture = self.farm.board(board_of(lease))
        if picture.phase is not None and not picture.asleep:
            lease.woken = True
        elif now.mono < lease.again:
            return
        elif lease.tries >= MOST_TRIES:
            self._not_woken(lease, f"{picture.name} did not come up")
            return
        elif picture.agent_online:
            self.switch_on(lease, now)
            return
        else:
            return
        self.dispatch.touched.add(picture.name)
        self.ledger.out += saved(lease)

    def _not_woken(self, lease: PersonLease, why: str) -> None:
        lease.woken, lease.reason = True, why
        self.dispatch.touched.add(board_of(lease))
        self.ledger.out += saved(lease)

    def reported(self, board: str, result: PowerResult) -> bool:
        """Whether the result is of a command for a person's lease."""
        lease = self.ledger.people.get(board)
        if lease is None or lease.woken or result.id != f"wake-{lease.id}":
            return False
        if not result.ok:
            why = result.error.message if result.error is not None else "the agent gave no reason"
            self._not_woken(lease, f"{board} could not be switched on: {why}"[:4096])
        return True

    def close(self, lease: PersonLease, now: Moment) -> None:
        """Switch the board off that its person has done with, unless somebody else has it."""
        board = board_of(lease)
        picture = self.farm.board(board)
        if picture.asleep or board in self.ledger.people or board in self.ledger.held:
            self.forget_closing(board)
        elif self.idle.pending(board) is not None or not reachable(picture):
            return
        elif lease.tries >= MOST_TRIES:
            self.ledger.out.append(Note(f"{board} was given back and could not be switched off"))
            self.forget_closing(board)
        elif now.mono >= lease.again:
            lease.tries += 1
            lease.again = now.mono + self.ledger.policy.power_timeout_s
            self.ledger.out.append(self.idle.send(board, PowerAction.OFF, now))
            self.dispatch.touched.add(board)

    def forget_closing(self, board: str) -> None:
        """The board is off, or somebody else's."""
        lease = self.ledger.closing.pop(board, None)
        if lease is not None:
            lease.closing = False
            self.ledger.out.append(SaveLease(lease))
