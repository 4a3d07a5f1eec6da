"""Who listens at the ports that the settings name. /proc/net tells the ports, /proc/PID/fd whose they are, and the
kernel's socket diagnosis (sock_diag(7)) which of them are bound to one interface."""

import ipaddress
import os
import re
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.doctor.finding import Finding, unseen, well, wrong
from cli.doctor.wants import PortWant

_LISTEN, _UNCONNECTED = "0A", "07"
"""net/tcp_states.h, in hexadecimal; a UDP socket that listens is "closed"."""
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_DIAG_TIMEOUT_S = 2.0
_SOCKET_LINK = re.compile(r"socket:\[([0-9]+)\]")
_UNIT = re.compile(r"/([A-Za-z0-9@:_.\\-]+\.(?:service|socket|scope))(?:/|$)")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process. `unit` is the systemd unit that it belongs to, or empty."""

    pid: int
    program: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid}{', ' + self.unit if self.unit else ''})"


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens. `owners` None: whose it is cannot be seen by this user."""

    protocol: str
    address: str
    port: int
    inode: int
    interface: str = ""
    owners: tuple[Owner, ...] | None = None


def check(
    wants: Sequence[PortWant], listeners: Collection[Listener], ours: Mapping[str, frozenset[int]]
) -> list[Finding]:
    """One finding for each port. `ours`: the processes of each daemon that runs with these settings."""
    found = []
    for want in wants:
        subject = f"{want.protocol} {want.port} ({want.purpose})"
        holders = [one for one in listeners if _clash(want, one)]
        mine = ours.get(want.daemon, frozenset())
        found.append(_judged(want, subject, holders, mine))
    return found


def _judged(want: PortWant, subject: str, holders: list[Listener], mine: frozenset[int]) -> Finding:
    others = [one for one in holders if one.owners is None or not {owner.pid for owner in one.owners} & mine]
    if others:
        return _taken(want, subject, others, mine)
    if holders:
        return well("ports", subject, f"the {want.daemon} listens")
    if mine:
        unit = f"boardhand-{want.daemon}"
        what = f"the {want.daemon} runs and does not listen there"
        return wrong("ports", subject, what, f"journalctl -u {unit}; systemctl restart {unit}")
    return well("ports", subject, "free")


def _taken(want: PortWant, subject: str, others: list[Listener], mine: frozenset[int]) -> Finding:
    change = f"or change {want.key}"
    if any(one.owners is None for one in others):
        if mine:  # then it is most likely the daemon's own socket
            return unseen("ports", subject, "the process that listens there is another user's", "run it as root")
        mend = f"run it as root to see by which; {change}"
        return wrong("ports", subject, "taken by a process of another user", mend)
    owner = next((owner for one in others for owner in one.owners or ()), None)
    if owner is None:
        mend = f"systemctl disable --now nfs-server  # or which of the kernel's services it is; {change}"
        return wrong("ports", subject, "taken by the kernel itself", mend)
    stop = f"systemctl disable --now {owner.unit}" if owner.unit else f"kill {owner.pid}"
    return wrong("ports", subject, f"taken by {owner}", f"{stop}  # {change}")


def _clash(want: PortWant, one: Listener) -> bool:
    if (one.protocol, one.port) != (want.protocol, want.port):
        return False
    if want.interface and one.interface and want.interface != one.interface:
        return False
    ours, theirs = ipaddress.ip_address(want.address), ipaddress.ip_address(one.address)
    if ours.is_unspecified or theirs.is_unspecified:
        # `::` takes IPv4 as well, unless it was told not to, which /proc does not show.
        return ours.version == theirs.version or theirs.is_unspecified
    return ours == theirs


# --- facts -----------------------------------------------------------------------------------------------------


def listeners(proc: Path = Path("/proc")) -> list[Listener]:
    """All sockets that listen in this network namespace, with their processes as far as this user may see them.

    Raises:
        OSError: /proc/net cannot be read.
    """
    found: list[Listener] = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = proc / "net" / protocol
        if protocol.endswith("6") and not table.exists():
            continue  # a kernel without IPv6
        found += parse(protocol, table.read_text(encoding="ascii", errors="replace"))
    owners = socket_owners(proc)
    everything = os.geteuid() == 0
    bound = bound_interfaces()
    return [
        Listener(
            one.protocol,
            one.address,
            one.port,
            one.inode,
            bound.get(one.inode, ""),
            owners.get(one.inode, () if everything else None),
        )
        for one in found
    ]


def parse(table: str, text: str) -> Iterator[Listener]:
    """The listening sockets of a table as /proc/net/tcp (proc_net(5)); lines of no such form are passed over."""
    protocol = table.removesuffix("6")
    state = _LISTEN if protocol == "tcp" else _UNCONNECTED
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != state or ":" not in fields[1]:
            continue
        raw, _, port = fields[1].rpartition(":")
        yield Listener(protocol, _address(raw), int(port, 16), int(fields[9]))


def _address(raw: str) -> str:
    # The kernel prints each 32 bit word in this machine's order.
    words = [struct.pack("=I", int(raw[i : i + 8], 16)) for i in range(0, len(raw), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def socket_owners(proc: Path = Path("/proc")) -> dict[int, tuple[Owner, ...]]:
    """Socket inode -> the processes that have it open, as far as this user may look."""
    found: dict[int, list[Owner]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        owner: Owner | None = None
        for inode in _sockets(folder):
            owner = owner or Owner(int(folder.name), _program(folder), unit_of(folder))
            found.setdefault(inode, []).append(owner)
    return {inode: tuple(owners) for inode, owners in found.items()}


def _sockets(folder: Path) -> Iterator[int]:
    try:
        for entry in (folder / "fd").iterdir():
            match = _SOCKET_LINK.fullmatch(os.readlink(entry))  # noqa: PTH115  # it is no path
            if match is not None:
                yield int(match[1])
    except OSError:
        return  # it has ended, or is not ours to look into


def _program(folder: Path) -> str:
    try:
        return (folder / "comm").read_text(errors="replace").strip() or "a program"
    except OSError:
        return "a program"


def unit_of(folder: Path) -> str:
    """The systemd unit of a process, from its control group; empty where it is of none."""
    try:
        text = (folder / "cgroup").read_text(errors="replace")
    except OSError:
        return ""
    units = _UNIT.findall(text)
    return units[-1] if units and units[-1].endswith(".service") and not units[-1].startswith("user@") else ""


def descendants(pid: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """A process and all below it: the agent's TFTP is served by children of it."""
    parents: dict[int, list[int]] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(errors="replace")
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(folder.name))
    found, todo = {pid}, [pid]
    while todo:
        below = set(parents.get(todo.pop(), ())) - found
        found |= below
        todo += below
    return frozenset(found)


def bound_interfaces() -> dict[int, str]:
    """Socket inode -> the interface that it is bound to. Empty where the kernel does not tell: then every socket
    counts as bound to none."""
    found: dict[int, str] = {}
    try:
        names = dict(socket.if_nameindex())
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                for inode, index in _diagnosis(family, protocol):
                    if index in names:
                        found[inode] = names[index]
    except OSError:
        return found
    return found


def _diagnosis(family: int, protocol: int) -> Iterable[tuple[int, int]]:
    """(inode, interface index) of all listening sockets: linux/inet_diag.h, `inet_diag_req_v2` and `inet_diag_msg`."""
    states = 1 << 10 | 1 << 7
    request = struct.pack("=BBBxI", family, protocol, 0, states) + bytes(48)
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_DIAG_TIMEOUT_S)
        link.sendto(header + request, (0, 0))
        while True:
            data = link.recv(1 << 17)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind in {_NLMSG_DONE, _NLMSG_ERROR} or length < 16:
                    return
                if length >= 16 + 72:
                    (index,) = struct.unpack_from("=I", data, 16 + 4 + 4 + 32)
                    (inode,) = struct.unpack_from("=I", data, 16 + 68)
                    yield inode, index
                data = data[(length + 3) & ~3 :]
