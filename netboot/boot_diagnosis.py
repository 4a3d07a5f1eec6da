"""Where a boot stopped, why that is believed, and what to check. No I/O and no clock.

`_TABLE` is read from the top: the row that tells of the farthest progress comes first, and the first that holds is the
answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from netboot.boot_families import family_of
from netboot.boot_history import Stranger
from netboot.boot_record import POWER_WENT, Boot, Cause, Mark, Outcome

NAMES_SHOWN = 3
RESENT_SHARE = 0.02
"""Of all packets sent again from which a boot's line is called bad; a good one loses none."""
PACKET_BYTES = 1468
"""What a packet carries where nobody knows better: a block that fits into an Ethernet frame."""


class Place(StrEnum):
    """Where a boot is, or stopped."""

    UP = "up"
    NOT_REGISTERED = "not-registered"
    SENDING = "sending"
    CUT = "transfer-cut"
    REFUSED = "file-refused"
    SILENT = "kernel-silent"
    NO_KERNEL = "no-kernel"
    IN_VAIN = "asked-in-vain"
    NO_FILES = "no-tftp"
    DENIED = "dhcp-denied"
    ELSEWHERE = "dhcp-elsewhere"
    NO_REQUEST = "dhcp-no-request"
    UNANSWERED = "dhcp-unanswered"
    NO_DHCP = "no-dhcp"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is to be said of one boot. `stopped`: it ended there, or has been silent for longer than boards are at
    that place. `what` is one clause; `evidence` and `check` are short sentences."""

    place: Place
    stopped: bool
    what: str
    evidence: tuple[str, ...] = ()
    check: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    place: Place
    holds: Callable[[Boot], bool]
    what: Callable[[Boot, float], str]
    """The clause, from the boot and the seconds since it was heard last."""
    quiet_s: float = 30.0
    """Silence after which nothing more is expected."""
    check: tuple[str, ...] = ()


def _reached(*marks: Mark) -> Callable[[Boot], bool]:
    wanted = set(marks)
    return lambda boot: bool(wanted & boot.marks.keys())


def _last_file(*outcomes: Outcome) -> Callable[[Boot], bool]:
    return lambda boot: boot.last_file in outcomes and Mark.SYSTEM not in boot.marks


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _names(boot: Boot) -> str:
    names = list(boot.missing)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _up(boot: Boot, _quiet_s: float) -> str:
    took = boot.since(Mark.REGISTERED)
    return "registered" if took is None or boot.cause is not Cause.POWER else f"registered after {_seconds(took)}"


def _in_vain(boot: Boot, _quiet_s: float) -> str:
    names = list(boot.missing)
    if len(names) == 1:
        return f"the only file it asked for is not there: {names[0]}"
    return f"asked for {len(names)} names and none of them is there: {_names(boot)}"


def _cut(boot: Boot, _quiet_s: float) -> str:
    return f"the transfer of {boot.last_name} was cut: {boot.last_reason or 'no reason given'}"


def _refused(boot: Boot, _quiet_s: float) -> str:
    return f"{boot.last_name} was refused: {boot.last_reason}"


def _no_kernel(boot: Boot, quiet_s: float) -> str:
    got = "its boot script or configuration" if Mark.CONFIG in boot.marks else "its boot loader"
    if boot.last_file is Outcome.MISSING:
        return f"fetched {got}, then asked for {boot.last_name}, which is not there"
    return f"fetched {got} and no kernel; silent for {_seconds(quiet_s)}"


def _silent(boot: Boot, quiet_s: float) -> str:
    if boot.last_file is Outcome.MISSING:
        return f"fetched the kernel, then asked for {boot.last_name}, which is not there"
    return f"kernel fetched, silent since for {_seconds(quiet_s)}"


def _no_dhcp(boot: Boot, quiet_s: float) -> str:
    since = "power on" if boot.cause is Cause.POWER else "it was first seen"
    return f"no DHCP in {_seconds(quiet_s)} since {since}"


_TABLE: tuple[_Row, ...] = (
    _Row(Place.UP, _reached(Mark.REGISTERED), _up, quiet_s=0.0),
    _Row(
        Place.NOT_REGISTERED,
        _reached(Mark.SYSTEM),
        lambda _boot, quiet_s: (
            f"its kernel runs and asked for an address, then did not register for {_seconds(quiet_s)}"
        ),
        quiet_s=60.0,
        check=(
            "whether boardhand's client is in its initrd or root, and starts",
            "whether the board reaches the MQTT server named as boardhand.mqtt on its command line",
        ),
    ),
    _Row(
        Place.SENDING,
        _last_file(Outcome.UNDER_WAY),
        lambda boot, _quiet_s: f"{boot.last_name} is being sent",
        quiet_s=120.0,
    ),
    _Row(
        Place.CUT,
        lambda boot: boot.last_file is Outcome.FAILED and boot.last_reason == POWER_WENT,
        lambda boot, _quiet_s: f"{POWER_WENT} while {boot.last_name} was being sent",
    ),
    _Row(
        Place.CUT,
        _last_file(Outcome.FAILED),
        _cut,
        check=(
            "the network cable, the switch port and its speed",
            "the MTU on the way, where large blocks or windows fail and small ones do not",
            "whether the board has memory enough where the file is put",
        ),
    ),
    _Row(
        Place.REFUSED,
        _last_file(Outcome.REFUSED),
        _refused,
        check=(
            "whether the file is there and the agent may read it",
            "whether two boards have changed places: names of another board are refused",
        ),
    ),
    _Row(
        Place.SILENT,
        _reached(Mark.KERNEL),
        _silent,
        quiet_s=60.0,
        check=(
            "console= in the profile's cmdline, and what the serial console says",
            "whether the dtb is this board's, and the kernel of its architecture",
            "root= and the initrd: does it hold the driver of the board's network port",
        ),
    ),
    _Row(
        Place.NO_KERNEL,
        _reached(Mark.CONFIG, Mark.LOADED),
        _no_kernel,
        check=(
            "what the boot loader says on the serial console: it rejects what it fetched",
            "the profile's arch and load addresses (uboot_env)",
        ),
    ),
    _Row(
        Place.REFUSED,
        lambda boot: Mark.ASKED in boot.marks and not boot.missing,
        lambda boot, _quiet_s: f"nothing that it asked for was sent whole; the last was {boot.last_name}",
    ),
    _Row(
        Place.IN_VAIN,
        _reached(Mark.ASKED),
        _in_vain,
        check=("whether the board takes the file name from DHCP, or has one of its own in its environment or EEPROM",),
    ),
    _Row(
        Place.NO_FILES,
        _reached(Mark.ADDRESS),
        lambda _boot, quiet_s: f"has its address, and asked for no file in {_seconds(quiet_s)}",
        check=(
            "the board's boot order: network before disk or card",
            "whether a firewall here drops UDP port 69, or the board fetches from elsewhere (next-server, serverip)",
        ),
    ),
    _Row(
        Place.DENIED,
        _reached(Mark.DENIED),
        lambda _boot, _quiet_s: "wanted an address that is not its own, and did not take the one that it was offered",
        check=("whether the board has a fixed address (ipaddr) that differs from the settings'",),
    ),
    _Row(
        Place.ELSEWHERE,
        _reached(Mark.ELSEWHERE),
        lambda _boot, _quiet_s: "took its address from another DHCP server",
        check=("which other DHCP server answers on this network, and take it away or leave DHCP to it",),
    ),
    _Row(
        Place.NO_REQUEST,
        _reached(Mark.OFFERED),
        lambda _boot, _quiet_s: "was offered its address and never requested it",
        check=(
            "whether our answers reach the board: VLAN, spanning tree delay (set portfast), a firewall",
            "whether another DHCP server is quicker, or somebody else uses the address already",
            "whether its firmware ignores offers without something it wants (a boot file, PXE options)",
        ),
    ),
    _Row(
        Place.UNANSWERED,
        _reached(Mark.DHCP),
        lambda _boot, _quiet_s: "asked by DHCP and was not answered",
        check=("the agent's log for the board's MAC address",),
    ),
    _Row(
        Place.NO_DHCP,
        lambda _boot: True,
        _no_dhcp,
        quiet_s=60.0,
        check=(
            "the network cable, the link light and the switch port",
            "the board's boot order, and whether its boot loader starts at all (serial console)",
            "its MAC address in the settings",
        ),
    ),
)


def diagnose(boot: Boot, now: datetime, *, strangers: Sequence[Stranger] = (), named: Sequence[str] = ()) -> Diagnosis:
    """Where `boot` is at `now`. `strangers` are those who were heard and are nobody's; `named` the boot files that the
    board would be told by DHCP."""
    row = next(row for row in _TABLE if row.holds(boot))
    until = boot.ended or now
    since = boot.began if row.place is Place.NO_DHCP else boot.last_at
    quiet_s = max(0.0, (until - since).total_seconds())
    evidence = [*_evidence_of_names(boot, row.place, named), *_evidence_of_line(boot)]
    check = list(row.check)
    if row.place is Place.NO_DHCP:
        evidence += _evidence_of_strangers(boot, strangers)
    if row.place is not Place.CUT and _bad_line(boot):
        check.append("the network cable and the switch port: much had to be sent again")
    return Diagnosis(
        row.place,
        row.place is not Place.UP and (boot.ended is not None or quiet_s >= row.quiet_s),
        row.what(boot, quiet_s),
        tuple(evidence),
        tuple(check) if row.place is not Place.UP else (),
    )


def _evidence_of_names(boot: Boot, place: Place, named: Sequence[str]) -> list[str]:
    found = []
    if boot.missing and place is not Place.UP:
        times = sum(boot.missing.values())
        found.append(f"asked {times} times for names that are not there: {_names(boot)}")
        family = family_of(boot.missing)
        if place is Place.IN_VAIN and family is not None:
            found.append(f"these names are those of {family}")
        if place is Place.IN_VAIN and named:
            found.append(f"DHCP names {' or '.join(named)} here")
    if place in {Place.NO_FILES, Place.NO_REQUEST, Place.IN_VAIN} and boot.vendor_class:
        found.append(f"it says by DHCP that it is {boot.vendor_class}")
    return found


def _bad_line(boot: Boot) -> bool:
    return boot.resent > max(5.0, RESENT_SHARE * boot.size_bytes / PACKET_BYTES)


def _evidence_of_line(boot: Boot) -> list[str]:
    return [f"{boot.resent} packets had to be sent again"] if _bad_line(boot) else []


def _evidence_of_strangers(boot: Boot, strangers: Sequence[Stranger]) -> list[str]:
    return [
        f"meanwhile {stranger.mac} asked by DHCP ({stranger.vendor_class or 'no vendor class'}), which is no board's "
        "MAC address: is it this one's?"
        for stranger in strangers[:NAMES_SHOWN]
        if stranger.mac and stranger.last_at >= boot.began
    ]
