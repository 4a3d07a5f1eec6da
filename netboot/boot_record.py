"""One boot of a board as it is kept: what it asked for, what it got, and when it came how far. No I/O and no clock."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from netboot.events import Role

MAX_REQUESTS = 200
"""Listed per boot. A boot that ends well makes 10 to 40; one that makes more goes in circles."""
MAX_MISSING = 50
"""Names asked in vain that are kept per boot; PXELINUX's custom makes about 12."""
MAX_TEXT = 160
"""Characters of a name or reason that are kept: 200 requests must fit into one MQTT message."""


POWER_WENT = "its power went off"
"""The reason of what was cut by the power, and is nobody's fault."""


class Via(StrEnum):
    """The protocol of a request."""

    DHCP = "dhcp"
    TFTP = "tftp"
    HTTP = "http"


class Outcome(StrEnum):
    """What became of a request."""

    UNDER_WAY = "under-way"
    ANSWERED = "answered"
    """DHCP only: an address was offered or given."""
    UNANSWERED = "unanswered"
    """DHCP only: we said nothing, because it asked another server or is not ours."""
    SENT = "sent"
    PART = "part"
    """Its size alone was asked for, or a range of it."""
    MISSING = "missing"
    REFUSED = "refused"
    FAILED = "failed"


class Cause(StrEnum):
    """How we know that a boot began."""

    POWER = "power"
    """Its power was read back as on."""
    AGAIN = "again"
    """A boot loader asked again after the board was up."""
    SEEN = "seen"
    """It asked, and nothing tells when it was switched on: the agent was away, or its power is switched elsewhere."""


class Mark(StrEnum):
    """How far a boot came; each is noted when it is reached first, `LOADED` with every file that was sent."""

    DHCP = "dhcp"
    """A DHCP message was seen."""
    OFFERED = "offered"
    ADDRESS = "address"
    """Its address was given to it."""
    ELSEWHERE = "elsewhere"
    """It asked another DHCP server for its address."""
    DENIED = "denied"
    """It wanted an address that is not its own."""
    ASKED = "asked"
    """A file was asked for, by whatever name."""
    CONFIG = "config"
    """A boot script or configuration was sent."""
    KERNEL = "kernel"
    """A kernel was sent to its end."""
    LOADED = "loaded"
    SYSTEM = "system"
    """Something that is no boot loader asked by DHCP after the kernel was sent: the kernel runs."""
    REGISTERED = "registered"


@dataclass(slots=True)
class BootRequest:
    """One request. `name` is a path, or the kind of a DHCP message; `client` a MAC or an IP address; `detail` what was
    answered, or why not. `times`: the same again, one right after the other, until `last_at`."""

    at: datetime
    via: Via
    name: str
    outcome: Outcome
    client: str = ""
    role: Role | None = None
    detail: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    resent: int = 0
    """Packets that were sent again."""
    times: int = 1
    last_at: datetime | None = None

    @property
    def mb_per_s(self) -> float | None:
        """Millions of octets per second; None where nothing was sent or it took no measurable time."""
        if self.outcome is not Outcome.SENT or self.seconds <= 0:
            return None
        return self.size_bytes / self.seconds / 1e6

    def same_again(self, other: "BootRequest") -> bool:
        """Whether `other` says nothing that this one does not say."""
        repeatable = self.outcome not in {Outcome.UNDER_WAY, Outcome.SENT, Outcome.PART}
        return repeatable and (self.via, self.name, self.outcome, self.client, self.detail) == (
            other.via,
            other.name,
            other.outcome,
            other.client,
            other.detail,
        )


@dataclass(slots=True)
class Boot:
    """One boot. The sums go on when `requests` is full; `not_listed` counts what stands in them alone."""

    board: str
    number: int
    """Rises by one with each boot of the board."""
    began: datetime
    cause: Cause
    last_at: datetime
    """When something was heard or done last."""
    ended: datetime | None = None
    requests: list[BootRequest] = field(default_factory=list)
    not_listed: int = 0
    marks: dict[Mark, datetime] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    """Names asked for in vain, and how often."""
    vendor_class: str = ""
    """Of the boot loader that asked by DHCP last."""
    boot_id: str = ""
    """As it registered."""
    files: int = 0
    """Sent to their end."""
    size_bytes: int = 0
    resent: int = 0
    last_file: Outcome | None = None
    """What became of the file that was asked for last."""
    last_name: str = ""
    last_reason: str = ""

    def reach(self, mark: Mark, at: datetime) -> None:
        """Note that the boot came as far as `mark`."""
        if mark is Mark.LOADED:
            self.marks[mark] = at
        else:
            self.marks.setdefault(mark, at)

    def add(self, request: BootRequest) -> bool:
        """List `request`; whether it stands there as an entry of its own."""
        if self.requests and self.requests[-1].same_again(request):
            self.requests[-1].times += 1
            self.requests[-1].last_at = request.at
            return False
        if len(self.requests) >= MAX_REQUESTS:
            self.not_listed += 1
            return False
        self.requests.append(request)
        return True

    def since(self, mark: Mark) -> float | None:
        """Seconds from the beginning to `mark`, None where it was not reached."""
        at = self.marks.get(mark)
        return None if at is None else max(0.0, (at - self.began).total_seconds())


_PHASES = (
    ("to-dhcp", Mark.DHCP),
    ("to-first-file", Mark.ASKED),
    ("loading", Mark.LOADED),
    ("to-registered", Mark.REGISTERED),
)
"""Name and where it ends; each begins where the one before ended, the first with the boot."""


def phases(boot: Boot) -> list[tuple[str, float]]:
    """The parts of the boot that were reached, in order, with their seconds. The first is missing where nobody knows
    when the boot began."""
    found = []
    at = boot.began if boot.cause is Cause.POWER else None
    for name, end in _PHASES:
        reached = boot.marks.get(end)
        if reached is None:
            continue
        if at is not None:
            found.append((name, max(0.0, (reached - at).total_seconds())))
        at = reached
    return found


def kept(text: str) -> str:
    """Foreign text as it is kept: printable ASCII and no longer than `MAX_TEXT`."""
    plain = text if text.isascii() and text.isprintable() else text.encode("unicode_escape").decode()
    return plain if len(plain) <= MAX_TEXT else plain[: MAX_TEXT - 3] + "..."
