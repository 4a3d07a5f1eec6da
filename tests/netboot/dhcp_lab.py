"""A board network in namespaces of our own: a bridge in ours, another DHCP server's place, and a client's. Needs root.

Sockets are made inside a namespace and used from this process, so server and client run in the test itself.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
from ipaddress import IPv4Address, IPv4Network

from netboot.dhcp_desk import DhcpDesk, DhcpDuty, DhcpOwner
from netboot.dhcp_packet import DhcpPacket, MessageType, encode, parse
from netboot.dhcp_settings import DhcpBoard, DhcpSettings
from virtual_lab.namespace import inside

OURS, OTHERS, CLIENTS = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2"), IPv4Address("10.77.0.250")
MAC, STRANGER = "52:54:00:77:00:01", "52:54:00:99:00:01"
BOARD = DhcpBoard("b1", (MAC,), IPv4Address("10.77.0.11"), "b1.scr")
SETTINGS = DhcpSettings(
    interface="br0",
    server_address=OURS,
    network=IPv4Network("10.77.0.0/24"),
    lease_s=600,
    router=OURS,
    pool=(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.110")),
)
PXE = b"PXEClient:Arch:00007:UNDI:003016"
DEADLINE_S = 60.0


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, timeout=60)


class Lab:
    """`br0` in `server` (10.77.0.1), `v0` in `other` (10.77.0.2) and in `client` (10.77.0.250)."""

    def __init__(self):
        self.names = {place: f"bh-{os.getpid()}-{place}" for place in ("server", "other", "client")}
        self.open, self.processes, self.sockets, self.desks = {}, [], [], []
        self.closing = []
        self.events, self.alerts, self.saved = [], [], []
        self.changed = asyncio.Event()

    def build(self):
        for place, name in self.names.items():
            ip("netns", "add", name)
            self.open[place] = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            ip("-n", name, "link", "set", "lo", "up")
        server = self.names["server"]
        ip("-n", server, "link", "add", "br0", "type", "bridge", "forward_delay", 0)
        ip("-n", server, "addr", "add", f"{OURS}/24", "dev", "br0")
        ip("-n", server, "link", "set", "br0", "up")
        for place, address in (("other", OTHERS), ("client", CLIENTS)):
            ip("-n", server, "link", "add", place, "type", "veth", "peer", "name", "v0", "netns", self.names[place])
            ip("-n", server, "link", "set", place, "master", "br0", "up")
            ip("-n", self.names[place], "addr", "add", f"{address}/24", "dev", "v0")
            ip("-n", self.names[place], "link", "set", "v0", "up")

    async def ready(self):
        """Until the bridge forwards for both: the kernel takes up to a second to notice that they are up."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                shown = subprocess.run(
                    ["ip", "-n", self.names["server"], "-d", "link", "show", "type", "bridge_slave"],
                    check=True, capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                if shown.stdout.count("bridge_slave state forwarding") == 2:
                    return
                await asyncio.sleep(0.02)

    async def addresses_confirmed(self):
        """Until both ends have a link-local address that nobody else uses (RFC 4862 section 5.4)."""
        async with asyncio.timeout(DEADLINE_S):
            for place, interface in (("server", "br0"), ("client", "v0")):
                while "fe80" not in self.link_local(place, interface, "-tentative"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    def link_local(self, place, interface, *flags):
        shown = subprocess.run(
            ["ip", "-n", self.names[place], "-6", "-br", "addr", "show", "dev", interface, "scope", "link", *flags],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return shown.stdout

    async def close(self):
        for end in self.closing:
            end()
        for desk in self.desks:
            await desk.stop()
        for sock in self.sockets:
            sock.close()
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
            process._transport.close()
        for descriptor in self.open.values():
            os.close(descriptor)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=60, check=False)

    async def run(self, place, *command, **more):
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.names[place], *map(str, command), **more
        )
        self.processes.append(process)
        return process

    def mac_of(self, place, interface="v0"):
        shown = subprocess.run(
            ["ip", "-n", self.names[place], "-br", "link", "show", interface],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return shown.stdout.split()[2]

    def serve(self, boards=(BOARD,), *, leases=None, boot_file_for=None, save=None, **duty):
        desk = DhcpDesk(
            SETTINGS,
            DhcpDuty(**duty),
            DhcpOwner(
                boot_file_for=boot_file_for or (lambda board, kind: f"{board}-{kind}.efi"),
                on_event=self.hear(self.events),
                on_alert=self.hear(self.alerts),
                leases=leases,
                save_leases=save or self.saved.append,
            ),
        )
        desk.set_boards(boards)
        with inside(self.open["server"]):
            desk.start()
        self.desks.append(desk)
        return desk

    def hear(self, into):
        def heard(event):
            into.append(event)
            self.changed.set()

        return heard

    async def told(self, into, wanted, within_s=DEADLINE_S):
        """The first of `into` that is `wanted`, when it has come."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for event in into:
                        if wanted(event):
                            return event
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"did not come; seen: {into}") from None

    def client(self, place="client", port=68):
        with inside(self.open[place]):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0\0")
            sock.bind(("", port))
        sock.setblocking(False)
        self.sockets.append(sock)
        return RawClient(sock)

    async def dnsmasq(self, *options, place="other"):
        """Debian's dnsmasq as the other server; on return it serves."""
        process = await self.run(
            place, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=v0", "--no-ping",
            "--log-dhcp", "--leasefile-ro", "--dhcp-authoritative", "--user=root", *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said = []
        async with asyncio.timeout(DEADLINE_S):
            while b"DHCP, IP range" not in (line := await process.stderr.readline()):
                said.append(line)
                assert line, said
        return process


def message(kind, mac, *, xid=7, options=(), ciaddr="0.0.0.0"):
    """One client's message, as octets."""
    packet = DhcpPacket(
        op=1, xid=xid, chaddr=bytes.fromhex(mac.replace(":", "")), flags=0x8000, ciaddr=IPv4Address(ciaddr),
        options=((53, bytes((kind,))), *options),
    )  # fmt: skip
    return encode(packet)


class RawClient:
    """Any number of DHCP clients on one socket."""

    def __init__(self, sock):
        self.sock = sock

    def ask(self, kind, mac=MAC, *, to=("255.255.255.255", 67), **more):
        self.sock.sendto(message(kind, mac, **more), to)

    async def asked(self, again_s, kind, mac, *, xid, **more):
        """The answer; the question is repeated as long as none comes."""
        for _ in range(int(DEADLINE_S / again_s)):
            self.ask(kind, mac, xid=xid, **more)
            with contextlib.suppress(AssertionError):
                return await self.answer(xid=xid, within_s=again_s)
        raise AssertionError(f"no answer to {kind.name} of {mac} within {DEADLINE_S:g} s")

    async def answers(self, count, *, xid=7, within_s=DEADLINE_S):
        """The first `count` answers of this transaction with their senders' addresses."""
        found = []
        try:
            async with asyncio.timeout(within_s):
                while len(found) < count:
                    data, sender = await asyncio.get_running_loop().sock_recvfrom(self.sock, 2048)
                    packet = parse(data)
                    if packet.xid == xid:
                        found.append((sender, packet))
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {count} answers came: {found}") from None
        return found

    async def answer(self, **more):
        return (await self.answers(1, **more))[0][1]

    async def lease(self, mac, *, xid=7, options=(), again_s=DEADLINE_S):
        """DISCOVER and REQUEST; the ACK."""
        offer = await self.asked(again_s, MessageType.DISCOVER, mac, xid=xid, options=options)
        assert offer.message_type is MessageType.OFFER
        taken = ((50, offer.yiaddr.packed), (54, offer.address_option(54).packed))
        while True:
            answer = await self.asked(again_s, MessageType.REQUEST, mac, xid=xid, options=(*options, *taken))
            if answer.message_type is not MessageType.OFFER:  # one that came twice
                return answer
