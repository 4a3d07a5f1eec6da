"""The network of a virtual lab: one bridge with the dispatcher's address, and one cable per board.

A cable ends in a file descriptor that QEMU is given. Two kinds, chosen by trying:

* tap, where `/dev/net/tun` may be opened (as root; on most desktops by everybody). The kernel moves the frames.
* veth, elsewhere: a raw packet socket on the far end of a veth pair, and `frame_pump` between it and a unix
  datagram socket that QEMU takes. Nearly as fast (36 of 44 MiB/s of TFTP).

Call it before the event loop starts: pyroute2's synchronous interface runs a loop of its own.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # has no stubs
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from virtual_lab.frame_filter import attach_to_socket, attach_to_tap
from virtual_lab.namespace import NO_RIGHTS_HINT, LabError, inside, new_network

BRIDGE = "br0"
BRIDGE_ADDRESS = "10.77.0.1"
PREFIX_LENGTH = 24
# Bridge and boards are on one wire: no board needs more than Ethernet's usual frame.
MAX_FRAME_BYTES = 1514

TUN_DEVICE = Path("/dev/net/tun")
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
# linux/sockios.h, linux/if.h, linux/ethtool.h
_IFF_UP = 0x1
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
# linux/if_packet.h, linux/if_ether.h
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_IGNORE_OUTGOING = 23
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 0x0003
# Room for a TFTP window or two while the other side of the pump is not scheduled.
_CABLE_BUFFER_BYTES = 1 << 20
# The kernel counts 768 to 1280 for a frame of up to 600 bytes, and grants twice what is asked for (socket(7)).
_QUEUED_FRAME_BYTES = 640


class NetworkError(LabError):
    """The lab's network cannot be set up."""


class CableKind(StrEnum):
    """How frames come from the bridge to QEMU."""

    TAP = "tap"
    VETH = "veth"


@dataclass(frozen=True, slots=True)
class CableEnd:
    """The board at the end of a cable. `address` is None for a board whose address nobody knows yet.

    `filtered`: only its own frames reach it (`frame_filter`). Without, all do, multicast too.
    `queue_frames`: about so many wait for a machine that stands still; None: hundreds.
    """

    mac: str
    address: str | None = None
    filtered: bool = True
    queue_frames: int | None = None


@dataclass(frozen=True, slots=True)
class Cable:
    """A board's network cable.

    `nic` is QEMU's end, to be inherited by it. `pump` are the two sockets that `frame_pump` joins, None for a tap.
    """

    kind: CableKind
    interface: str
    nic: int
    pump: tuple[int, int] | None = None

    def qemu_netdev(self, name: str) -> str:
        """The argument of QEMU's `-netdev` for this cable."""
        if self.kind is CableKind.TAP:
            return f"tap,id={name},fd={self.nic}"
        return f"dgram,id={name},local.type=fd,local.str={self.nic}"


def _index(routes: IPRoute, interface: str) -> int:
    found: list[int] = list(routes.link_lookup(ifname=interface))
    if not found:
        raise NetworkError(f"interface {interface} is not in this network namespace")
    return found[0]


def build_bridge(address: str = BRIDGE_ADDRESS, prefix_length: int = PREFIX_LENGTH) -> None:
    """Make `br0` with `address`, and bring it and `lo` up.

    Raises:
        NetworkError: the kernel refuses, as when it has no bridges.
    """
    try:
        with IPRoute() as routes:
            routes.link("set", index=_index(routes, "lo"), state="up")
            routes.link("add", ifname=BRIDGE, kind="bridge")
            bridge = _index(routes, BRIDGE)
            routes.addr("add", index=bridge, address=address, prefixlen=prefix_length)
            routes.link("set", index=bridge, state="up")
    except NetlinkError as error:
        # Ubuntu grants the namespace and then nothing in it.
        hint = f": {NO_RIGHTS_HINT}" if error.code in {errno.EPERM, errno.EACCES} else ""
        raise NetworkError(f"the bridge {BRIDGE} cannot be made: {error}{hint}") from error


def tap_is_possible() -> bool:
    """Whether a tap can be made in this namespace: tried, as permissions alone do not tell."""
    try:
        os.close(_open_tap("bhtry"))
    except OSError:
        return False
    return True


def _open_tap(interface: str) -> int:
    descriptor = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", interface.encode(), flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def lay_cables(ends: Sequence[CableEnd], kind: CableKind) -> list[Cable]:
    """Join boards to the bridge. The interfaces vanish with the namespace, a tap already with its descriptor.

    Raises:
        NetworkError: the kernel refuses.
    """
    far_network = new_network() if kind is CableKind.VETH and ends else None
    try:
        if far_network is None:
            return [_tap_cable(f"tap{number}", end) for number, end in enumerate(ends)]
        return [_veth_cable(f"veth{number}", end, far_network) for number, end in enumerate(ends)]
    except (NetlinkError, OSError) as error:
        raise NetworkError(f"a board cannot be joined to {BRIDGE} by a {kind}: {error}") from error
    finally:
        if far_network is not None:
            os.close(far_network)  # the packet sockets in it keep it


def _tap_cable(interface: str, end: CableEnd) -> Cable:
    descriptor = _open_tap(interface)
    if end.filtered:
        attach_to_tap(descriptor, end.mac, end.address)
    if end.queue_frames is not None:
        with IPRoute() as routes:
            routes.link("set", index=_index(routes, interface), txqlen=end.queue_frames)
    join_bridge(interface)
    return Cable(CableKind.TAP, interface, descriptor)


def _veth_cable(interface: str, end: CableEnd, far_network: int) -> Cable:
    """The far end lies in a namespace of its own: in ours, the kernel would answer ARP for 10.77.0.1 there too."""
    far_end = f"{interface}q"
    with IPRoute() as routes:
        routes.link("add", ifname=interface, kind="veth", peer={"ifname": far_end, "net_ns_fd": far_network})
    # The kernel leaves TCP checksums to the "hardware", and there is none: without this, the guest drops all TCP
    # while UDP and ping work.
    switch_off_tx_checksum(interface)
    join_bridge(interface)
    with inside(far_network):
        raw = open_packet_socket(far_end)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            set_link(control, far_end, up=True)
    if end.filtered:
        attach_to_socket(raw, end.mac, end.address)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CABLE_BUFFER_BYTES)
    queue_bytes = _CABLE_BUFFER_BYTES if end.queue_frames is None else end.queue_frames * _QUEUED_FRAME_BYTES
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, queue_bytes)
    return Cable(CableKind.VETH, interface, far.detach(), (raw.detach(), near.detach()))


def set_link(control: socket.socket, interface: str, *, up: bool) -> None:
    """Bring an interface of `control`'s namespace up or down (netdevice(7)).

    Raises:
        OSError: there is no such interface.
    """
    told = fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
    flags = struct.unpack("16sH14x", told)[1]
    wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
    fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", interface.encode(), wanted))


def open_packet_socket(interface: str) -> socket.socket:
    """A raw socket that takes every frame that arrives at `interface`, whoever it is for, and sends whole frames."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        request = struct.pack("iHH8s", socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0, b"")
        raw.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CABLE_BUFFER_BYTES)
        raw.bind((interface, _ETH_P_ALL))
    except OSError:
        raw.close()
        raise
    return raw


def join_bridge(interface: str) -> None:
    """Put `interface` into the bridge and bring it up.

    Raises:
        NetlinkError: the kernel refuses.
    """
    with IPRoute() as routes:
        routes.link("set", index=_index(routes, interface), master=_index(routes, BRIDGE), state="up")


def switch_off_tx_checksum(interface: str) -> None:
    """Let the kernel fill in TCP and UDP checksums itself on `interface` (ethtool -K IF tx off).

    Raises:
        OSError: the interface is not there or cannot do it.
    """
    value = bytearray(struct.pack("II", _ETHTOOL_STXCSUM, 0))
    # struct ifreq carries a pointer to the ethtool command.
    held = (ctypes.c_char * len(value)).from_buffer(value)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(held))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request)
