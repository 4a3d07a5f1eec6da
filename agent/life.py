"""The life of a board as a table: phase and event give the next phase.

Two rules. Everything that decides a board's phase stands in this file. It knows no clock and no I/O: `now` comes in,
actions go out. The diagram in docs/ is generated from `TABLE`.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from wire.phases import Phase, Power


class LifeEvent(StrEnum):
    """What can happen to a board."""

    POWER_ON = "power on"
    """The read-back changed to on."""
    POWER_OFF = "power off"
    SLEEP = "put to sleep"
    """Off by policy: verified, on the broker's word."""
    NETBOOT_SEEN = "DHCP seen"
    BOOT_FILE_SENT = "boot file sent"
    KERNEL_SENT = "kernel sent"
    BOOTLOADER_SEEN = "boot loader on its console"
    KERNEL_SEEN = "kernel on its console"
    ANSWERS = "answers on the network"
    """An IP stack runs on it, by whatever it has booted."""
    RESTART_SEEN = "restart on its console"
    """A boot loader's banner and a kernel after a system had run: either alone could be text that is printed."""
    ONLINE = "registered and online"
    """The board has proved who it is, and says that it is there."""
    WORK_BEGUN = "work begun"
    WORK_ENDED = "work ended"
    GONE = "went silent"
    """The board's own word, or its will, while its power is on."""
    BOOT_TIMEOUT = "boot timeout"
    FAULT = "fault found"
    MAINTENANCE_ON = "maintenance begins"
    MAINTENANCE_OFF = "maintenance ends"
    CLAIMED = "claimed"


_P = Phase
_E = LifeEvent

_SWITCHED_OFF = {_E.POWER_OFF: _P.OFF, _E.SLEEP: _P.SLEEPING}
_SET_ASIDE = {_E.FAULT: _P.FAULT, _E.MAINTENANCE_ON: _P.MAINTENANCE}
_COMING_UP = {
    **_SWITCHED_OFF,
    **_SET_ASIDE,
    _E.BOOT_FILE_SENT: _P.NETBOOT,
    _E.KERNEL_SENT: _P.BOOTING,
    _E.KERNEL_SEEN: _P.BOOTING,
    _E.RESTART_SEEN: _P.BOOTING,
    _E.ONLINE: _P.READY,
    _E.BOOT_TIMEOUT: _P.FAULT,
}
_UP = {
    **_SWITCHED_OFF,
    **_SET_ASIDE,
    # A running board renews its DHCP lease, but only a bootloader fetches boot files: it has rebooted.
    _E.BOOT_FILE_SENT: _P.NETBOOT,
    _E.GONE: _P.STARTING,
    _E.RESTART_SEEN: _P.BOOTING,
}

TABLE: dict[Phase, dict[LifeEvent, Phase]] = {
    _P.UNCLAIMED: {_E.CLAIMED: _P.OFF},
    _P.OFF: {**_SET_ASIDE, _E.POWER_ON: _P.STARTING, _E.SLEEP: _P.SLEEPING},
    _P.SLEEPING: {**_SET_ASIDE, _E.POWER_ON: _P.STARTING, _E.POWER_OFF: _P.OFF},
    _P.STARTING: {**_COMING_UP, _E.NETBOOT_SEEN: _P.NETBOOT, _E.ANSWERS: _P.BOOTING},
    _P.NETBOOT: _COMING_UP,
    # The kernel's own DHCP client is heard here too, so DHCP alone does not lead back.
    _P.BOOTING: {**_COMING_UP, _E.BOOTLOADER_SEEN: _P.STARTING},
    _P.READY: {**_UP, _E.WORK_BEGUN: _P.BUSY},
    _P.BUSY: {**_UP, _E.WORK_ENDED: _P.READY},
    _P.FAULT: {
        **_SWITCHED_OFF,
        _E.POWER_ON: _P.STARTING,
        _E.ONLINE: _P.READY,
        _E.MAINTENANCE_ON: _P.MAINTENANCE,
    },
    _P.MAINTENANCE: {_E.MAINTENANCE_OFF: _P.OFF},
}
"""Where an event is absent, the board stays in its phase."""


class Action(StrEnum):
    """What the caller is to do."""

    CYCLE_FOR_BOOT = "cycle-for-boot"
    """The board did not come up in its time: cycle its power once."""


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """The board moved; `reason` is for people."""

    old: Phase
    new: Phase
    reason: str | None


Outcome = PhaseChange | Action


@dataclass(slots=True)
class BoardLife:
    """One board's phase, its reason, and the time by which it must have come up.

    `boot_timeout_s` bounds the time from power on to registered; None for a board that never registers: it stays
    `starting` while it is on, and is not cycled for it. `boot_retries` is how often the power is cycled
    before that becomes a fault: a marginal cable or a lost TFTP packet must not cost a night, a dead board must not be
    cycled for ever.
    """

    boot_timeout_s: float | None
    boot_retries: int = 1
    phase: Phase = Phase.OFF
    reason: str | None = None
    boot_deadline: float | None = None
    retries_left: int = field(default=-1)
    retrying: bool = False
    """A boot retry's own cycle is under way."""

    def __post_init__(self) -> None:
        if self.retries_left < 0:
            self.retries_left = self.boot_retries

    def on(self, event: LifeEvent, now: float, reason: str | None = None) -> list[Outcome]:
        """Take `event` at monotonic time `now`; returns what changed and what to do."""
        if event is LifeEvent.BOOT_TIMEOUT and self.phase.coming_up and self.retries_left > 0:
            self.retries_left -= 1
            self.retrying = True
            self.boot_deadline = self.deadline_from(now)
            return [Action.CYCLE_FOR_BOOT]
        old = self.phase
        new = TABLE[old].get(event, old)
        if new is old:
            # The same fault may be found again with better words.
            if new is Phase.FAULT and event is LifeEvent.FAULT and reason:
                self.reason = reason
            return []
        self.phase = new
        self.reason = reason
        if new.coming_up:
            if not old.coming_up:
                self.boot_deadline = self.deadline_from(now)
        else:
            self.boot_deadline = None
        if new is Phase.OFF and self.retrying:
            # The off of a retry's own cycle gives no retries back; a board would be cycled for ever.
            self.retrying = False
        elif new in {Phase.READY, Phase.OFF, Phase.SLEEPING}:
            self.retries_left = self.boot_retries
            self.retrying = False
        return [PhaseChange(old, new, reason)]

    def deadline_from(self, now: float) -> float | None:
        """When a board that comes up from `now` on must have registered."""
        return None if self.boot_timeout_s is None else now + self.boot_timeout_s

    def boot_overdue(self, now: float) -> bool:
        """Whether the board should have come up by `now`."""
        return self.boot_deadline is not None and now >= self.boot_deadline

    def follow_power(self, power: Power, now: float, *, sleep: bool = False) -> list[Outcome]:
        """Take a change of the read-back power. Unknown power moves no phase: it says nothing about the board."""
        if power is Power.ON:
            return self.on(LifeEvent.POWER_ON, now)
        if power is Power.OFF:
            return self.on(LifeEvent.SLEEP if sleep else LifeEvent.POWER_OFF, now)
        return []


def mermaid() -> str:
    """The table as a Mermaid state diagram, one arrow per pair of phases, labelled with its events."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for phase, row in TABLE.items():
        for event, new in row.items():
            arrows.setdefault((phase, new), []).append(event.value)
    lines = ["stateDiagram-v2", "    [*] --> off"]
    everywhere = {LifeEvent.FAULT.value, LifeEvent.MAINTENANCE_ON.value}
    for (old, new), events in arrows.items():
        shown = [event for event in events if event not in everywhere]
        if shown and old is not new:
            lines.append(f"    {old} --> {new}: {', '.join(shown)}")
    lines.append("    note right of fault: from every phase that is not maintenance, when a fault is found")
    lines.append("    note right of maintenance: from every phase, when a person says so")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(mermaid(), end="")  # noqa: T201  # `make docs` reads it
