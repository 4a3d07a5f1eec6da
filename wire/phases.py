"""Closed sets of words that stand in payloads: phases, power states, actions, kinds of error."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a board is in its life."""

    UNCLAIMED = "unclaimed"
    """Seen, but nobody has given it a name and an outlet."""
    OFF = "off"
    STARTING = "starting"
    """Power is on, nothing heard yet."""
    NETBOOT = "netboot"
    """DHCP or TFTP seen."""
    BOOTING = "booting"
    """The kernel was fetched."""
    READY = "ready"
    """Registered and idle."""
    BUSY = "busy"
    SLEEPING = "sleeping"
    """Off by policy; a job wakes it."""
    FAULT = "fault"
    """Something is wrong; `reason` says what."""
    MAINTENANCE = "maintenance"
    """A person has taken it out of work."""

    @property
    def coming_up(self) -> bool:
        """Power is on and the board has not reported for work yet."""
        return self in {Phase.STARTING, Phase.NETBOOT, Phase.BOOTING}

    @property
    def in_service(self) -> bool:
        """The board can be given work, now or after a wake."""
        return self in {Phase.OFF, Phase.SLEEPING, Phase.READY, Phase.BUSY} or self.coming_up


class Power(StrEnum):
    """What was read back from the hardware. An outlet has a state; `cycle` is an action and never stands here."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class PowerAction(StrEnum):
    """What may be asked of a board's power."""

    ON = "on"
    OFF = "off"
    CYCLE = "cycle"


class Presence(StrEnum):
    """Whether a program is there: `offline` said by itself, `lost` said by its will."""

    ONLINE = "online"
    OFFLINE = "offline"
    LOST = "lost"


class Purpose(StrEnum):
    """Why power is being switched; `sleep` makes the board `sleeping` instead of `off`."""

    OPERATOR = "operator"
    SLEEP = "sleep"
    WAKE = "wake"


class ErrorKind(StrEnum):
    """What went wrong, by what the caller does next."""

    BAD_REQUEST = "bad-request"
    """The message is wrong; mend it. `key` names the part."""
    EXPIRED = "expired"
    """It arrived too late; send it again if it is still wanted."""
    NOT_ALLOWED = "not-allowed"
    """A lease, a token or a rule stands against it."""
    UNKNOWN_BOARD = "unknown-board"
    NOT_FOUND = "not-found"
    CONFIGURATION = "configuration"
    """Settings and hardware disagree; never retry."""
    AUTHENTICATION = "authentication"
    """The device refused our credentials; never retry."""
    UNREACHABLE = "unreachable"
    """The device did not answer; retry with a back-off."""
    REFUSED = "refused"
    """The device answered no."""
    NOT_VERIFIED = "not-verified"
    """The device accepted, and the read-back says otherwise: a hub or PDU that lies."""
    INTERRUPTED = "interrupted"
    """The agent was stopped while it was under way; the read-back says what is."""
    BUSY = "busy"
    INTERNAL = "internal"


class LeaseKind(StrEnum):
    """Who holds a board."""

    JOB = "job"
    PERSON = "person"


class LeaseStage(StrEnum):
    """Where a person's lease is."""

    WAITING = "waiting"
    """In the queue for a board."""
    HELD = "held"
    ENDING = "ending"
    """Held, and soon over unless it is extended."""
    ENDED = "ended"


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    WAKING = "waking"
    """A board is leased for it and is being powered up."""
    OFFERED = "offered"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    """A step ended with a non-zero exit code."""
    ERROR = "error"
    """The farm failed it: no board came up, the lease ran out, attempts are used up."""
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in {JobState.PASSED, JobState.FAILED, JobState.ERROR, JobState.CANCELLED}


class Outcome(StrEnum):
    """How a board says that work ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """The board could not run it at all, or was told to stop."""


class EventType(StrEnum):
    """What happened to a board."""

    POWER = "power"
    """The read-back power changed, or a command ended."""
    PHASE = "phase"
    NETBOOT = "netboot"
    """DHCP or TFTP of this board was seen."""
    REGISTERED = "registered"
    REGISTRATION_REFUSED = "registration-refused"
    PRESENCE = "presence"
    ALERT = "alert"
    CONSOLE = "console"
    """The board's console showed a milestone: `details` has its `kind` and the `line`; of a panic the last `lines`."""
    HOOK = "hook"
    """A program of the admin's ran at a point of the board's life; `details` has its exit code and last words."""
    ROOT = "root"
    """A root was given to it, reset or saved, or could not be; `details.what` says which."""
    ACTION = "action"
    """A request that takes time (console, bootloader, mode, flash): `details` has the `action`, its `transaction`, the
    `stage` (first `begun`, last `done` or `failed` with a `reason`), and maybe `percent` and `message`."""
    OUTBOX_OVERFLOW = "outbox-overflow"
    """The bounded outbox dropped the oldest events; `details.dropped` counts them."""
