"""What a board would be served, and its last boots: the answer to `agent/<agent>/request/netboot`, as its `data`.

The request's data is `board`, `boots` (how many, 1 to 10) and, to go on in a long answer, `after`. Secrets never stand
in here: in a command line the place of one is taken by `…`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from wire.names import Id
from wire.payloads import Payload, ShortText, Text

MAX_BOOTS = 10

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class RequestVia(StrEnum):
    """The protocol of a request."""

    DHCP = "dhcp"
    TFTP = "tftp"
    HTTP = "http"


class RequestOutcome(StrEnum):
    """What became of a request."""

    UNDER_WAY = "under-way"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    """By DHCP: it was not for us to answer."""
    SENT = "sent"
    PART = "part"
    """By HTTP: its size alone was asked for, or a range of it."""
    MISSING = "missing"
    """Asked for in vain: there is no such file for this board."""
    REFUSED = "refused"
    FAILED = "failed"


class BootRequestInfo(Payload):
    """One request of a boot. `times`: it came so often, one right after the other."""

    at: AwareDatetime
    via: RequestVia
    name: ShortText
    """The path, or the kind of a DHCP message."""
    outcome: RequestOutcome
    role: ShortText | None = None
    client: ShortText = ""
    """The IP address, of DHCP the MAC address."""
    detail: ShortText = ""
    size_bytes: Count = 0
    seconds: Seconds = 0.0
    mb_per_s: Seconds | None = None
    resent: Count = 0
    """Packets that were sent again."""
    times: int = Field(default=1, ge=1)


class BootDiagnosis(Payload):
    """Where a boot is, or where it stopped. New places may come with later versions."""

    place: ShortText
    stopped: bool
    """It ended before the board had registered, or nothing more is expected of it."""
    what: Text
    evidence: list[Text] = Field(default=[])
    check: list[Text] = Field(default=[])
    """What to look at, the likeliest first."""


class BootPhase(Payload):
    """A part of a boot, measured."""

    name: ShortText
    seconds: Seconds


class BootReport(Payload):
    """One boot."""

    number: int = Field(ge=1)
    began: AwareDatetime
    cause: ShortText
    """`power`: it was switched on; `again`: its boot loader asked again while it was up; `seen`: nobody saw how."""
    ended: AwareDatetime | None = None
    """When its power went off or the next boot began."""
    registered: AwareDatetime | None = None
    diagnosis: BootDiagnosis
    phases: list[BootPhase] = Field(default=[])
    files: Count = 0
    """Sent to their end."""
    size_bytes: Count = 0
    resent: Count = 0
    missing: dict[str, int] = Field(default={})
    """Names asked for in vain, and how often."""
    requests: list[BootRequestInfo] = Field(default=[])
    not_listed: Count = 0
    """Requests beyond those that are listed."""


class ServedName(Payload):
    """The boot file that DHCP names to one kind of client."""

    client: ShortText
    name: ShortText


class ServedFile(Payload):
    """A file that is served to the board."""

    role: ShortText
    name: ShortText
    """Under which it is asked for."""
    path: Text | None = None
    """On the agent's host; absent for a file that is made when it is asked for."""
    size_bytes: Count | None = None
    problem: Text | None = None
    """Why it could not be sent now."""


class Served(Payload):
    """What the board would be served now. `problem` says why it would be nothing."""

    problem: Text | None = None
    macs: list[ShortText] = Field(default=[])
    address: ShortText | None = None
    server: ShortText | None = None
    interface: ShortText | None = None
    profile: Id | None = None
    arch: ShortText | None = None
    boot_files: list[ServedName] = Field(default=[])
    files: list[ServedFile] = Field(default=[])
    cmdline: Text | None = None
    why: list[Text] = Field(default=[])
    """For each of the above where it comes from."""


class StrangerInfo(Payload):
    """Somebody who was heard on the board network and is no board of this agent."""

    first_at: AwareDatetime
    last_at: AwareDatetime
    mac: ShortText | None = None
    address: ShortText | None = None
    vendor_class: ShortText = ""
    times: Count = 0
    answered: bool = False
    """It was given an address, because joining is open."""
    names: list[ShortText] = Field(default=[])
    """Files that it asked for last."""


class NetbootReport(Payload):
    """The answer."""

    board: Id
    served: Served
    boots: list[BootReport] = Field(default=[])
    """The newest first."""
    strangers: list[StrangerInfo] = Field(default=[])
    next: ShortText | None = None
    """The answer was full: ask again with `after` set to this."""
