"""Power outside of leases: which commands are under way, how long boards have idled, and who sleeps or is woken ahead
of need by the rules of `broker.sleep.policy`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.farm_view import BoardPicture
from broker.happenings import Action, Moment, Note, SendPower
from broker.ledger import Policy
from broker.sleep.policy import Group, Idle, SleepRule, SleepRules
from broker.sleep.wake_forecast import WakeForecast
from broker.sleep.wake_room import WakeRoom
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
    rules: SleepRules
    forecast: WakeForecast
    _idle_since: dict[str, float] = field(default_factory=dict)
    _on_since: dict[str, float] = field(default_factory=dict)
    _off_since: dict[str, float] = field(default_factory=dict)
    _pending: dict[str, _Pending] = field(default_factory=dict)
    _woken: dict[str, float] = field(default_factory=dict)
    """Boards that were woken ahead of need, and when: one that does not come up is not hammered."""
    _count: int = 0

    def pending(self, board: str) -> PowerAction | None:
        """The power command outside of a lease that is under way for this board."""
        found = self._pending.get(board)
        return found.power if found is not None else None

    def switching(self) -> set[str]:
        """Boards with a power command outside of a lease under way."""
        return set(self._pending)

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
            self._off_since.pop(board, None)
        elif picture.power is Power.OFF:
            self._on_since.pop(board, None)
            self._off_since.setdefault(board, now.mono)
        if not picture.ready:
            self._idle_since.pop(board, None)
        pending = self._pending.get(board)
        if pending is None:
            return
        done = picture.asleep if pending.power is PowerAction.OFF else picture.coming_up or picture.ready
        if done or now.mono >= pending.until:
            del self._pending[board]

    def rests_until(self, picture: BoardPicture, now: Moment) -> float | None:
        """Until when a sleeping board may not be woken again, or None when it may."""
        min_off_s = self.rules.of(picture).min_off_s
        if min_off_s <= 0 or not picture.asleep:
            return None
        until = self._off_since.get(picture.name, now.mono) + min_off_s
        return until if until > now.mono else None

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

    def tend(self, free: Iterable[BoardPicture], room: WakeRoom, now: Moment) -> list[tuple[str, PowerAction]]:
        """Boards to put to sleep, and boards to wake for a warm minimum.

        Args:
            free: boards that could be given work, and those that are being switched.
            room: how many boards may be woken.
            now: the time.
        """
        groups: dict[SleepRule, Group] = {}
        for picture in free:
            rule = self.rules.of(picture)
            group = groups.get(rule)
            if group is None:
                group = groups[rule] = Group(rule)
            self._sort_in(group, picture, now)
        orders: list[tuple[str, PowerAction]] = []
        for rule, group in groups.items():
            kept = group.kept_warm(now.wall, self.forecast, room.booting_cap) if rule.warm else 0
            orders += [(name, PowerAction.OFF) for name in group.to_sleep(now.wall, kept)]
            for picture in group.to_wake(kept, self.forecast):
                if room.refusal(picture.labels, now.mono) is None:
                    self._woken[picture.name] = now.mono
                    room.woke(picture.name, picture.labels, now.mono)
                    orders.append((picture.name, PowerAction.ON))
        return orders

    def _sort_in(self, group: Group, picture: BoardPicture, now: Moment) -> None:
        name, pending = picture.name, self.pending(picture.name)
        if pending is PowerAction.ON or (picture.coming_up and pending is None):
            group.coming.append(name)
        elif pending is None and picture.ready:
            idle_since = self._idle_since.setdefault(name, now.mono)
            on_since = self._on_since.get(name, now.mono)
            group.idle.append(Idle(picture, now.mono - idle_since, now.mono - on_since))
        elif pending is None and picture.asleep and group.rule.warm:
            woken = self._woken.get(name)
            if woken is None or now.mono - woken >= self.policy.power_timeout_s:
                group.asleep.append(picture)
