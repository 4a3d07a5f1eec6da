"""When boards that nobody needs go to sleep, and which power commands outside of leases are under way."""

from dataclasses import dataclass, field

from broker.farm_view import BoardPicture, FarmView
from broker.happenings import Action, Moment, Note, SendPower
from broker.ledger import Policy
from wire.payloads import PowerResult
from wire.phases import Power, PowerAction, Purpose


@dataclass(slots=True)
class _Pending:
    id: str
    power: PowerAction
    until: float


@dataclass(slots=True)
class IdlePolicy:
    """Times are monotonic seconds. `session` makes the ids of commands differ from those before a restart."""

    policy: Policy
    session: int
    _idle_since: dict[str, float] = field(default_factory=dict)
    _on_since: dict[str, float] = field(default_factory=dict)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _count: int = 0

    def pending(self, board: str) -> PowerAction | None:
        """The power command outside of a lease that is under way for this board."""
        found = self._pending.get(board)
        return found.power if found is not None else None

    def waking(self) -> set[str]:
        """Boards that a person had us wake and that have not come up yet."""
        return {board for board, pending in self._pending.items() if pending.power is PowerAction.ON}

    def taken(self, board: str) -> None:
        """The board got a lease: it is idle no more."""
        self._idle_since.pop(board, None)

    def restart(self) -> None:
        """The picture begins anew, and so does every board's idle time. Commands under way end by themselves."""
        self._idle_since.clear()

    def look(self, picture: BoardPicture, now: Moment) -> None:
        """Take note of a board's power and that it is not idle, and end what its state shows to be done."""
        board = picture.name
        if picture.power is Power.ON:
            self._on_since.setdefault(board, now.mono)
        elif picture.power is Power.OFF:
            self._on_since.pop(board, None)
        if not picture.ready:
            self._idle_since.pop(board, None)
        pending = self._pending.get(board)
        if pending is None:
            return
        done = picture.asleep if pending.power is PowerAction.OFF else picture.coming_up or picture.ready
        if done or now.mono >= pending.until:
            del self._pending[board]

    def send(self, board: str, power: PowerAction, now: Moment) -> SendPower:
        """Command a board that nobody has leased."""
        self._count += 1
        command_id = f"{power.value}-{self.session}-{self._count}"
        self._pending[board] = _Pending(command_id, power, now.mono + self.policy.power_timeout_s)
        self._idle_since.pop(board, None)
        purpose = Purpose.SLEEP if power is PowerAction.OFF else Purpose.WAKE
        return SendPower(board, power, command_id, purpose, None, now.after(self.policy.power_timeout_s))

    def answered(self, board: str, result: PowerResult) -> list[Action]:
        """A power result. After success the board stays aside until its state shows it, so that no work is offered to
        a board that is going down."""
        pending = self._pending.get(board)
        if pending is None or pending.id != result.id or result.ok:
            return []
        del self._pending[board]
        why = result.error.message if result.error is not None else "no reason given"
        return [Note(f"{board} could not be switched {pending.power.value}: {why}")]

    def sleep_idle(self, farm: FarmView, leased: set[str], now: Moment) -> list[Action]:
        """Commands for the boards that have been idle, and on, for long enough."""
        actions: list[Action] = []
        for name in farm.names():
            picture = farm.board(name)
            self.look(picture, now)
            stays_up = self.policy.idle_s <= 0 or picture.labels.get("sleep") is False
            if name in leased or name in self._pending or not picture.ready or stays_up:
                self._idle_since.pop(name, None)
                continue
            idle_since = self._idle_since.setdefault(name, now.mono)
            on_since = self._on_since.get(name, now.mono)
            if now.mono - idle_since >= self.policy.idle_s and now.mono - on_since >= self.policy.min_on_s:
                actions.append(self.send(name, PowerAction.OFF, now))
        return actions
