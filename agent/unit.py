"""One board as the shelf keeps it, and what the shelf tells its caller to do."""

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.life import BoardLife
from agent.outbox import NewEvent
from agent.power_watch import OnChange, PowerWatch
from agent.presence.observations import Sign, Source
from wire.payloads import Alert, ErrorInfo
from wire.phases import Phase, Power, PowerAction, Purpose


class UnknownBoardError(KeyError):
    """The board is not one of this agent's."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks."""

    monotonic: float
    wall: datetime


def moment() -> Moment:
    """Now."""
    return Moment(time.monotonic(), datetime.now(UTC))


@dataclass(slots=True)
class Effects:
    """What the caller is to do, in this order: store events and boards, publish, then act."""

    events: list[NewEvent] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    """Boards whose state is to be stored and published."""
    alerts: list[tuple[str, str, Alert | None]] = field(default_factory=list)
    enforce: list[tuple[str, PowerAction, Purpose]] = field(default_factory=list)
    """Boards whose power was changed by somebody else, and whose settings want it back."""
    cycle: list[str] = field(default_factory=list)
    """Boards whose power is to be cycled because they did not come up."""
    new_boot: list[str] = field(default_factory=list)
    """Boards that lost power: what the boot before was given is void."""
    show: list[tuple[str, Phase]] = field(default_factory=list)

    def add(self, other: "Effects") -> None:
        self.events += other.events
        self.changed |= other.changed
        self.alerts += other.alerts
        self.enforce += other.enforce
        self.cycle += other.cycle
        self.new_boot += other.new_boot
        self.show += other.show


@dataclass(frozen=True, slots=True)
class BoardPlan:
    """What the settings say of a board that matters here."""

    boot_timeout_s: float | None = 180.0
    """None: it never registers, so it cannot be late."""
    boot_retries: int = 1
    on_change: OnChange = OnChange.ADOPT


@dataclass(slots=True)
class Unit:
    """One board."""

    life: BoardLife
    since: datetime
    power: Power = Power.UNKNOWN
    target: Power | None = None
    target_before: Power | None = None
    """What was asked for before the command under way."""
    boot_id: str | None = None
    seq: int = 0
    proved_anew: bool = False
    """It has registered since it was last heard: that it is online then ends a fault, too."""
    sleeping_soon: bool = False
    """The off that is under way is a sleep."""
    alerts: set[str] = field(default_factory=set)
    watch: PowerWatch = field(default_factory=PowerWatch)
    kept: dict[Source, Sign] = field(default_factory=dict)
    """Signs of life that came after power on was asked for and before it was read back: a USB device is there 0.2 s
    after its port has power, and a power strip tells of that later."""

    def keep(self, sign: Sign) -> None:
        """A sign while the power is off, as far as we have read."""
        if sign.alive and self.target is Power.ON:
            self.kept[sign.source] = sign
        else:
            self.kept.pop(sign.source, None)

    def take_kept(self, power: Power) -> list[Sign]:
        """`power` was read: what was kept, if it is on now. Their events are out, so they come as first signs."""
        signs, self.kept = list(self.kept.values()), {}
        return [replace(sign, first=True) for sign in signs] if power is Power.ON else []

    @classmethod
    def planned(cls, plan: BoardPlan, since: datetime) -> "Unit":
        """A board of which nothing is known but its settings."""
        return cls(BoardLife(plan.boot_timeout_s, plan.boot_retries), since, watch=PowerWatch(plan.on_change))

    def follow(self, plan: BoardPlan) -> None:
        """The settings say something else of it now."""
        self.life.boot_timeout_s, self.life.boot_retries = plan.boot_timeout_s, plan.boot_retries
        self.watch.on_change = plan.on_change
        if plan.boot_timeout_s is None:
            self.life.boot_deadline = None


def error_details(error: ErrorInfo) -> dict[str, object]:
    """What an event says of a command's error."""
    return {"error": error.kind.value, "message": error.message}
