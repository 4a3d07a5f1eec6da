"""What a board's name is in DNS, the updates that put it there (RFC 2136), and what their answers mean. No I/O.

A name is taken as DHCP servers take one (RFC 4703, section 5.3): as one that nobody has, or as one that carries our
mark. The mark of a board's name is a TXT record with board and agent; the mark of an address's name is its PTR record
itself, which points to a name of ours. Every update asks for one of the two in its prerequisites (RFC 2136, section
2.4), so somebody else's record is neither changed nor removed, whatever we believe. At a board's name A, AAAA and TXT
are ours with the mark; records of other types are left alone.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.update

MAX_TTL_S = 2**31 - 1  # RFC 2181, section 8
MAX_ZONE_OCTETS = 255 - 64  # RFC 1035, section 3.1: a whole name is 255 octets at most; a label with its length, 64

Address: TypeAlias = IPv4Address | IPv6Address


class Kind(StrEnum):
    """Of an owner name: a board's, or an address's."""

    FORWARD = "forward"
    REVERSE = "reverse"


class Step(StrEnum):
    """What one update tries. Its prerequisite holds, or nothing at all is changed (RFC 2136, section 3.2)."""

    CREATE = "create"
    RENEW = "renew"
    REMOVE = "remove"


class Verdict(StrEnum):
    """What an answer says: done, the prerequisite does not hold, or neither."""

    DONE = "done"
    UNMET = "unmet"
    FAILED = "failed"


class Trouble(StrEnum):
    """Why a name is not in DNS, by what a person does next (`ADVICE`)."""

    CLOCK = "clock"
    KEY = "key"
    SIGNATURE = "signature"
    REFUSED = "refused"
    NOT_AUTHORITATIVE = "not authoritative"
    NOT_ZONE = "not in the zone"
    SERVER = "server failed"
    UNSIGNED = "unsigned answer"
    UNREACHABLE = "unreachable"
    TAKEN = "taken"
    NOT_STORED = "not stored"


ADVICE: dict[Trouble, str] = {
    Trouble.CLOCK: "the clocks of this host and of the DNS server differ too much (BADTIME): set both by NTP",
    Trouble.KEY: "the DNS server does not take our key (BADKEY): give it the key of key_file under the same name, "
    "and let it update this zone",
    Trouble.SIGNATURE: "our signature does not fit (BADSIG): key_file and the server differ in secret or algorithm",
    Trouble.REFUSED: "the DNS server refuses the update (REFUSED): allow updates of this zone to our key",
    Trouble.NOT_AUTHORITATIVE: "the DNS server is not the zone's primary (NOTAUTH): name the primary in server, or "
    "mend zone and reverse_zones",
    Trouble.NOT_ZONE: "the name is not inside the zone (NOTZONE): mend zone or reverse_zones",
    Trouble.SERVER: "the DNS server cannot do it now: look at its log",
    Trouble.UNSIGNED: "the answer carries no signature and is not believed: does the server know TSIG?",
    Trouble.UNREACHABLE: "the DNS server does not answer: check server, port and the network",
    Trouble.TAKEN: "somebody else holds this name, and it is left alone: remove his records, or rename the board",
    Trouble.NOT_STORED: "the agent cannot store what it would put there, so it does not: see its log",
}

_VERDICTS: dict[dns.rcode.Rcode, Verdict | Trouble] = {
    dns.rcode.NOERROR: Verdict.DONE,
    dns.rcode.YXDOMAIN: Verdict.UNMET,
    dns.rcode.YXRRSET: Verdict.UNMET,
    dns.rcode.NXRRSET: Verdict.UNMET,
    dns.rcode.NXDOMAIN: Verdict.UNMET,
    dns.rcode.REFUSED: Trouble.REFUSED,
    dns.rcode.NOTAUTH: Trouble.NOT_AUTHORITATIVE,
    dns.rcode.NOTZONE: Trouble.NOT_ZONE,
}
"""RFC 2136, section 2.2. Every other code is the server's own trouble."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an update. `trouble` stands with `FAILED` alone; `text` adds what was seen."""

    verdict: Verdict
    trouble: Trouble | None = None
    text: str = ""


def judged(rcode: dns.rcode.Rcode) -> Answer:
    """What a response code means."""
    found = _VERDICTS.get(rcode, Trouble.SERVER)
    if isinstance(found, Trouble):
        return Answer(Verdict.FAILED, found, dns.rcode.to_text(rcode))
    return Answer(found)


@dataclass(frozen=True, slots=True)
class ZoneSettings:
    """Where the names go. `reverse_zones` may be none; an address in none of them gets no PTR record. `ttl_s`: how
    long others may remember an address, 0 to 2^31 - 1.

    Raises:
        ValueError: a zone is no domain name, or is too long to hold a board's name.
    """

    agent: str
    zone: str
    reverse_zones: tuple[str, ...] = ()
    ttl_s: int = 300

    def __post_init__(self) -> None:
        object.__setattr__(self, "zone", normal_zone(self.zone))
        object.__setattr__(self, "reverse_zones", tuple(normal_zone(zone) for zone in self.reverse_zones))
        if not 0 <= self.ttl_s <= MAX_TTL_S:
            raise ValueError(f"ttl_s {self.ttl_s}: 0 to {MAX_TTL_S} seconds")


def normal_zone(text: str) -> str:
    """A zone's name, absolute and in small letters.

    Raises:
        ValueError: it is no domain name, or too long for a board's name in it.
    """
    try:
        name = dns.name.from_text(text.strip().lower())
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(f"{text!r} is no zone: {error}; write a domain name, as boards.example.org") from None
    if name == dns.name.root or sum(len(label) + 1 for label in name.labels) > MAX_ZONE_OCTETS:
        raise ValueError(f"{text!r} cannot hold names of boards: a zone has 1 to {MAX_ZONE_OCTETS} octets")
    return name.to_text()


@dataclass(frozen=True, slots=True)
class Entry:
    """What one owner name holds: a board's addresses, or the board's name an address points to."""

    kind: Kind
    zone: str
    name: str
    board: str
    mark: str
    values: tuple[str, ...]
    ttl_s: int


def entries_of(settings: ZoneSettings, board: str, addresses: list[Address]) -> list[Entry]:
    """What belongs into DNS for a board: its name, and a name for each address that lies in a reverse zone of ours."""
    if not addresses:
        return []
    name = f"{board}.{settings.zone}"
    mark = f"boardhand board={board} agent={settings.agent}"
    texts = tuple(str(address) for address in sorted(set(addresses), key=lambda a: (a.version, int(a))))
    found = [Entry(Kind.FORWARD, settings.zone, name, board, mark, texts, settings.ttl_s)]
    for text in texts:
        owner = dns.reversename.from_address(text)
        # The most specific of our zones that holds it.
        for zone in sorted(settings.reverse_zones, key=len, reverse=True):
            if owner.is_subdomain(dns.name.from_text(zone)):
                found.append(Entry(Kind.REVERSE, zone, owner.to_text(), board, name, (name,), settings.ttl_s))
                break
    return found


@dataclass(frozen=True, slots=True)
class Update:
    """One update of one name. With `REMOVE`, `entry` is what stands there."""

    step: Step
    entry: Entry
    mark: str
    """By which the name is known to be ours; not asked for by `CREATE`."""

    def message(self) -> dns.update.UpdateMessage:
        """The message, not yet signed."""
        entry = self.entry
        name = dns.name.from_text(entry.name)
        update = dns.update.UpdateMessage(dns.name.from_text(entry.zone))
        forward = entry.kind is Kind.FORWARD
        marked = dns.rdatatype.TXT if forward else dns.rdatatype.PTR
        if self.step is not Step.CREATE:
            update.present(name, marked, _quoted(self.mark) if forward else self.mark)
            for kind in (dns.rdatatype.A, dns.rdatatype.AAAA) if forward else ():
                update.delete(name, kind)
            update.delete(name, marked)
        elif forward:
            update.absent(name)
        else:
            update.absent(name, marked)
        if self.step is Step.REMOVE:
            return update
        if not forward:
            update.add(name, entry.ttl_s, marked, entry.mark)
            return update
        update.add(name, entry.ttl_s, marked, _quoted(entry.mark))
        for value in entry.values:
            update.add(name, entry.ttl_s, dns.rdatatype.AAAA if ":" in value else dns.rdatatype.A, value)
        return update


def _quoted(mark: str) -> str:
    return f'"{mark}"'
