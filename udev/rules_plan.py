"""Which names the rules file gets: from the settings, from words on the command line, and from what was installed.

The answer must not depend on what happens to be plugged in, since the adapter of a board that is off may be off, too:
a place or a name that settings give becomes the rule's comparison as it stands there. Only where settings give a
number (`/dev/ttyUSB0`), or our own name, the port has to be looked at, and once installed that stands.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from udev.rules import BY_NAME, BY_PLACE, Named, NamedPort, Role, RuleError, Terms, facts, selects
from udev.serial_ports import FACTORY_SERIALS, SerialPort

OWN_LINKS = "/dev/boards/"
_BY_PATH = re.compile(r"/dev/serial/by-path/(.+?)(?:-port([0-9]{1,3}))?")
_BY_ID = re.compile(r"/dev/serial/by-id/usb-(.+)-if([0-9a-f]{2})(?:-port([0-9]{1,3}))?")
_OWN = re.compile(rf"{OWN_LINKS}([a-z0-9-]+)-({'|'.join(Role)})")
_USB_REVISION = re.compile(r"-usbv[23]-(?=[0-9]+:)")
# What usb_id makes of the strings of a CP2102 or CP2105 that nobody customised.
_FACTORY_NAME = re.compile(rf"Silicon_Labs_.*_({'|'.join(sorted({serial for _, _, serial in FACTORY_SERIALS}))})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The port `device` shall be the `role` of `board`."""

    board: str
    role: Role
    device: str
    """`/dev/serial/by-path/…`, `/dev/serial/by-id/…`, `/dev/boards/…`, another link, or a kernel's name: `ttyUSB0`."""
    insisted: bool = False
    """Said just now, by a person: it counts more than what was installed."""


@dataclass(slots=True)
class Seen:
    """The serial ports of this host now, by the kernel's name."""

    ports: Mapping[str, SerialPort]
    properties: Mapping[str, Mapping[str, str]]
    """Of each port, udev's; empty where udev was not asked."""
    resolve: Callable[[str], str | None]
    """The kernel's name of the port that a link in /dev leads to."""
    _facts: list[tuple[SerialPort, dict[str, str]]] = field(init=False)

    def __post_init__(self) -> None:
        self._facts = [(port, facts(port, self.properties.get(name, {}))) for name, port in sorted(self.ports.items())]

    def selected(self, terms: Terms) -> list[SerialPort]:
        """The ports that a rule is for; more than one where they cannot be told apart by it."""
        return [port for port, seen in self._facts if selects(terms, seen)]


@dataclass(slots=True)
class Plan:
    """What would be written, and what a person should know about it."""

    names: list[Named] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def make_plan(wanted: Iterable[Wanted], seen: Seen, installed: Mapping[str, Named], *, fresh: bool = False) -> Plan:
    """The names for `wanted`, and those in `installed` that nothing speaks against; with `fresh` without the latter.

    Raises:
        RuleError: a device is no serial port or cannot be told from another one, or one port would get two names.
    """
    plan = Plan()
    asked: set[str] = set()
    for want in wanted:
        symlink = f"boards/{want.board}-{want.role.value}"
        if symlink in asked:
            raise RuleError(f"two ports are the {want.role.value} of board {want.board}: give it one of them")
        asked.add(symlink)
        entry = _entry(want, seen, installed.get(symlink), fresh=fresh)
        if entry is None:
            plan.notices.append(
                f"/dev/{symlink}: {want.device} is not plugged in, and only what is can be told from others by it; "
                "plug it in, or name it by /dev/serial/by-path"
            )
        else:
            plan.names.append(entry)
            plan.notices += _advice(want, entry)
    _refuse_shared_ports(plan.names, seen)
    if not fresh:
        _keep(plan, seen, [entry for symlink, entry in installed.items() if symlink not in asked])
    return plan


def own_name(device: str) -> tuple[str, Role] | None:
    """Board and role, if `device` is one of our own names."""
    found = _OWN.fullmatch(device)
    return None if found is None else (found[1], Role(found[2]))


def stable_terms(device: str) -> tuple[Terms, str] | None:
    """The comparisons for a port that is named by its place or by itself, and how it is known; None for other names.

    Raises:
        RuleError: it is a name that many adapters have.
    """
    place = _BY_PATH.fullmatch(device)
    if place is not None:
        # systemd 254 and later have a second name for the same place, which tells USB 2 from USB 3; all know this one.
        terms = [("ENV{ID_PATH}", _USB_REVISION.sub("-usb-", place[1]))]
        return (*terms, *_port_term(place[2])), BY_PLACE
    name = _BY_ID.fullmatch(device)
    if name is None:
        return None
    if _FACTORY_NAME.fullmatch(name[1]):
        raise RuleError(f"{device} is what every piece of its maker is called: name it by /dev/serial/by-path")
    terms = [("ENV{ID_BUS}", "usb"), ("ENV{ID_SERIAL}", name[1]), ("ENV{ID_USB_INTERFACE_NUM}", name[2])]
    return (*terms, *_port_term(name[3])), BY_NAME


def _port_term(number: str | None) -> Terms:
    return () if number is None else (("ENV{.ID_PORT}", number),)


def _entry(want: Wanted, seen: Seen, installed: Named | None, *, fresh: bool) -> Named | None:
    stable = stable_terms(want.device)
    if stable is not None:
        terms, how = stable
        if how == BY_NAME:
            _refuse_twins(want, seen.selected(terms))
        return Named(want.board, want.role, terms, how)
    keeps = own_name(want.device) is not None or not fresh
    if installed is not None and keeps and not want.insisted:
        return installed
    name = seen.resolve(want.device)
    port = seen.ports.get(name) if name is not None else None
    return None if port is None else NamedPort(want.board, want.role, port).known()


def _refuse_twins(want: Wanted, found: list[SerialPort]) -> None:
    """A name that an adapter gives itself tells nothing if another one gives it, too, or if no serial is in it."""
    if not any(not port.has_own_serial for port in found) and len(found) < 2:
        return
    places = " or ".join(by_path_name(port) for port in found)
    why = "more than one adapter has this name" if len(found) > 1 else "it has no serial number of its own"
    raise RuleError(f"{want.board}: {want.device}: {why}; name it by its place: {places}")


def by_path_name(port: SerialPort) -> str:
    """What 60-serial.rules calls a USB port by its place."""
    number = "" if port.port_number is None else f"-port{port.port_number}"
    return f"/dev/serial/by-path/{port.id_path}{number} ({port.name})"


def _advice(want: Wanted, entry: Named) -> list[str]:
    notices = []
    number = re.fullmatch(r"(/dev/)?tty(USB|ACM)[0-9]+", want.device)
    if number is not None and not want.insisted:
        notices.append(
            f"/dev/{entry.symlink}: the settings say {want.device}, which changes with the order of plugging; "
            f"write /dev/{entry.symlink}"
        )
    if "by port, since" in entry.how:
        notices.append(f"/dev/{entry.symlink}: known {entry.how}")
    return notices


def _refuse_shared_ports(names: list[Named], seen: Seen) -> None:
    taken: dict[str, Named] = {}
    for entry in names:
        for port in seen.selected(entry.terms):
            other = taken.setdefault(port.name, entry)
            if other is not entry:
                raise RuleError(
                    f"{port.node} would be both /dev/{other.symlink} and /dev/{entry.symlink}: give it to one of them"
                )


def _keep(plan: Plan, seen: Seen, left: list[Named]) -> None:
    taken = {port.name: entry for entry in plan.names for port in seen.selected(entry.terms)}
    by_terms = {entry.terms: entry for entry in plan.names}
    for entry in left:
        ports = seen.selected(entry.terms)
        new = by_terms.get(entry.terms) or next((taken[port.name] for port in ports if port.name in taken), None)
        if new is None:
            plan.names.append(entry)
        else:
            plan.notices.append(f"/dev/{entry.symlink} goes: its port is now /dev/{new.symlink}")
