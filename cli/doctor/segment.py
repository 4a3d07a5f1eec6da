"""The board network: its interface, and which DHCP servers answer there. The question is the agent's own probe, a
DISCOVER whose answer nobody takes up."""

import random
import socket
import struct
import time
from array import array
from collections.abc import Callable, Collection
from enum import StrEnum
from fcntl import ioctl
from ipaddress import IPv4Address, IPv4Interface

from agent.netboot_settings import NetbootTable
from cli.doctor.finding import Finding, unseen, well, wrong
from netboot.dhcp_desk import DhcpMode
from netboot.dhcp_events import RogueDhcpServer
from netboot.dhcp_packet import DhcpPacketError, encode, parse
from netboot.segment_frames import UdpSeen, from_client, is_ethernet, read
from netboot.segment_listener import SegmentListenError, open_socket
from netboot.segment_watch import SegmentWatch, probe_message

LISTEN_S = 3.0
"""A server that looks whether an address is free before it offers it takes a second (RFC 2131 section 3.1)."""
AGAIN_S = 1.0
_FRAME_BYTES = 2048
_SIOCGIFCONF, _SIOCGIFFLAGS = 0x8912, 0x8913  # linux/sockios.h
_IFREQ_BYTES = 16 + max(16, 3 * struct.calcsize("P"))  # netdevice(7): a name, and the largest of a union
_MOST_ADDRESSES = 1024
_ANSWER = 16  # of struct ifreq, behind the name
_IFF_UP, _IFF_RUNNING = 0x1, 0x40  # linux/if.h
Progress = Callable[[str, float], None]


class Link(StrEnum):
    """How an interface is."""

    UP = "up"
    DOWN = "down"
    NO_LINK = "no link"


def check_interface(table: NetbootTable) -> Finding:
    """Whether the interface is there, up, and has our address."""
    name = table.interface
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flags = _ask(sock, _SIOCGIFFLAGS, name)
        addresses = _addresses(sock, name)
    if flags is None:
        return judge_interface(name, table.address, None, [])
    (bits,) = struct.unpack_from("=H", flags, _ANSWER)
    link = Link.UP if bits & _IFF_RUNNING else Link.NO_LINK if bits & _IFF_UP else Link.DOWN
    return judge_interface(name, table.address, link, addresses)


def _ask(sock: socket.socket, what: int, interface: str) -> bytes | None:
    """netdevice(7); None where there is no such interface, or it has no such thing."""
    try:
        return ioctl(sock, what, struct.pack("16s24x", interface.encode()))
    except OSError:
        return None


def _addresses(sock: socket.socket, interface: str) -> list[IPv4Address]:
    """All its IPv4 addresses (SIOCGIFCONF tells those of all interfaces; one may have a label, as `eth1:0`)."""
    room = array("B", bytes(_IFREQ_BYTES * _MOST_ADDRESSES))
    where, length = room.buffer_info()
    try:
        (used, _) = struct.unpack("iP", ioctl(sock, _SIOCGIFCONF, struct.pack("iP", length, where)))
    except OSError:
        return []
    entries = (room[start : start + _IFREQ_BYTES].tobytes() for start in range(0, used, _IFREQ_BYTES))
    return [
        IPv4Address(entry[_ANSWER + 4 : _ANSWER + 8])
        for entry in entries
        if entry[:_ANSWER].partition(b"\0")[0].partition(b":")[0] == interface.encode()
    ]


def judge_interface(name: str, wanted: IPv4Interface, link: Link | None, addresses: Collection[IPv4Address]) -> Finding:
    """`link` None: there is no such interface. `addresses` are its IPv4 ones."""
    subject = f"interface {name}"
    if link is None:
        return wrong("network", subject, "is not there", "ip link  # then change [netboot] interface")
    if link is not Link.UP:
        what = "has no link" if link is Link.NO_LINK else "is down"
        return wrong("network", subject, what, f"ip link set {name} up  # and look at the cable")
    if wanted.ip not in addresses:
        has = f"has {', '.join(map(str, addresses))}" if addresses else "has no IPv4 address"
        return wrong(
            "network",
            subject,
            f"{has}, not {wanted.ip}",
            f"ip address add {wanted} dev {name}  # for good: in your network settings",
        )
    return well("network", subject, f"is there with {wanted}")


def check_rivals(table: NetbootTable, progress: Progress) -> Finding:
    """Ask who gives addresses there. Takes LISTEN_S seconds."""
    subject = f"DHCP servers on {table.interface}"
    if not is_ethernet(table.interface):
        return unseen("network", subject, "it is no Ethernet, or is not there")
    try:
        with open_socket(table.interface) as sock:
            found = _listen(sock, table, progress)
    except SegmentListenError as error:
        return unseen("network", subject, str(error), "run it as root")
    except OSError as error:
        return unseen("network", subject, f"nothing can be sent: {error.strerror}", f"ip link set {table.interface} up")
    return judge_rivals(table.dhcp, table.interface, found)


def _listen(sock: socket.socket, table: NetbootTable, progress: Progress) -> dict[str, str]:
    """Server address -> its MAC address. Our own agent's answers leave by this interface, and are not heard."""
    watch = SegmentWatch(table.interface, table.address.ip, friends=())
    mac: bytes = sock.getsockname()[4]
    found: dict[str, str] = {}
    begun = now = time.monotonic()
    next_s = begun
    while now < begun + LISTEN_S:
        if now >= next_s:
            sock.send(from_client(mac, encode(probe_message(mac.hex(":"), random.getrandbits(32)))))
            next_s = now + AGAIN_S
        sock.settimeout(max(0.01, min(next_s, begun + LISTEN_S) - now))
        try:
            seen = read(sock.recv(_FRAME_BYTES))
            if isinstance(seen, UdpSeen):
                events = watch.server_message(parse(seen.payload), seen.source, seen.mac, now)
                found |= {event.server: event.mac for event in events if isinstance(event, RogueDhcpServer)}
        except (TimeoutError, BlockingIOError, DhcpPacketError):
            pass  # nobody, or nothing that is DHCP: the next, until the time is over
        now = time.monotonic()
        progress(subject_of(table), min(1.0, (now - begun) / LISTEN_S))
    return found


def subject_of(table: NetbootTable) -> str:
    """For a progress line."""
    return f"listen for DHCP servers on {table.interface}"


def judge_rivals(mode: DhcpMode, interface: str, found: dict[str, str]) -> Finding:
    """What it means that these servers answer (address -> MAC address)."""
    subject = f"DHCP servers on {interface}"
    named = _named(found)
    if mode is DhcpMode.AUTHORITATIVE:
        if found:
            mend = 'switch it off, or give it another network; [netboot] dhcp = "proxy" if it is to stay'
            return wrong("network", subject, f"{named} answers beside the agent", mend)
        return well("network", subject, "nobody answers but the agent")
    if not found:
        return wrong(
            "network",
            subject,
            f'dhcp = "{mode}" leaves addresses to another server, and none answers',
            'start it, or set [netboot] dhcp = "authoritative"',
        )
    if len(found) > 1:
        return wrong("network", subject, f"{named} answer, and boards take either", "switch all of them off but one")
    mend = "boardhand netboot advice --settings FILE  # what it has to say" if mode is DhcpMode.OFF else ""
    return Finding("network", subject, well("", "", "").verdict, f"{named} gives the addresses", mend)


def _named(found: Collection[str] | dict[str, str]) -> str:
    return ", ".join(
        f"{address} ({found[address]})" if isinstance(found, dict) else address for address in sorted(found)
    )
