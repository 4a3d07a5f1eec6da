"""Networks of light boards: each has a network namespace with one interface, joined to the lab's bridge.

Their own namespaces make MAC addresses, ARP and source addresses those of real boards; sockets made inside
(`namespace.inside`) stay there while the process stays where it is. Addresses are set by ioctl (netdevice(7)):
that needs no event loop of its own and takes microseconds.
"""

import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from pyroute2 import IPRoute  # type: ignore[import-untyped]  # has no stubs
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from virtual_lab.namespace import inside, new_network
from virtual_lab.network import BRIDGE, NetworkError, set_link, switch_off_tx_checksum

INTERFACE = "eth0"
# linux/sockios.h
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C


@dataclass(frozen=True, slots=True)
class LightNetwork:
    """A namespace with `eth0` in it. Closing the descriptor, and the sockets inside, ends it."""

    descriptor: int

    def open_socket(self, kind: socket.SocketKind) -> socket.socket:
        """A non-blocking IPv4 socket inside."""
        with inside(self.descriptor):
            opened = socket.socket(socket.AF_INET, kind)
        opened.setblocking(False)
        return opened

    def plug(self) -> None:
        """Bring the interface up, without an address."""
        with self._control() as control:
            _set_address(control, _SIOCSIFADDR, "0.0.0.0")
            set_link(control, INTERFACE, up=True)

    def unplug(self) -> None:
        """Take the interface down, as when power is lost: nothing more gets out, not even a FIN."""
        with self._control() as control:
            set_link(control, INTERFACE, up=False)

    def configure(self, address: str, netmask: str) -> None:
        """Give the interface an address.

        Raises:
            OSError: it is not one.
        """
        with self._control() as control:
            _set_address(control, _SIOCSIFADDR, address)
            _set_address(control, _SIOCSIFNETMASK, netmask)

    def close(self) -> None:
        os.close(self.descriptor)

    def _control(self) -> socket.socket:
        with inside(self.descriptor):
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _set_address(control: socket.socket, request: int, address: str) -> None:
    value = struct.pack("16sHH4s8x", INTERFACE.encode(), socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(control.fileno(), request, value)


def join_light_board(number: int, mac: str) -> LightNetwork:
    """Make the network of light board `number`, plugged into the bridge, its interface down.

    To be called before the event loop starts, in the lab's network.

    Raises:
        NetworkError: the kernel refuses.
    """
    name = f"light{number}"
    descriptor = new_network()
    try:
        with IPRoute() as routes:
            bridge = routes.link_lookup(ifname=BRIDGE)[0]
            peer = {"ifname": INTERFACE, "address": mac, "net_ns_fd": descriptor}
            routes.link("add", ifname=name, kind="veth", peer=peer)
            routes.link("set", index=routes.link_lookup(ifname=name)[0], master=bridge, state="up")
        # As for a QEMU board behind a veth: nobody but the receiver's own kernel sees these frames, and that one
        # accepts an unfinished checksum, so only the packet sockets of DHCP servers and captures profit.
        switch_off_tx_checksum(name)
    except (NetlinkError, OSError, IndexError) as error:
        os.close(descriptor)
        raise NetworkError(f"light board {number} cannot be joined to {BRIDGE}: {error}") from error
    return LightNetwork(descriptor)
