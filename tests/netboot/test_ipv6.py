"""TFTP and HTTP over IPv6: foreign clients in a network namespace of our own, known by their addresses. Needs root."""

import asyncio
import json
import os
import subprocess
import sys
import time
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from netboot.board_addresses import link_local

MACS = ("52:54:00:77:00:01", "52:54:00:77:00:02")
SERVER_MAC = "52:54:00:77:00:fe"
BOARD, STRANGER = "fd77::11", "fd77::99"
LINK_LOCAL, OF_BOARD2, OF_SERVER = (str(link_local(mac)) for mac in (*MACS, SERVER_MAC))
ASKED = ["fd77::1", "fd77::2", f"{OF_SERVER}%v1"]
"""Addresses of the server, all on one interface."""
PORT = 8069
PXE = f"pxelinux.cfg/01-{MACS[0].replace(':', '-')}"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)


class Network:
    """A namespace with the server, one with the client, and a cable between them."""

    def __init__(self, folder):
        self.folder = folder
        self.server, self.client = f"bh-{os.getpid()}-6s", f"bh-{os.getpid()}-6c"
        self.kernel = os.urandom(300_000)
        self.events = []
        self.changed = asyncio.Event()
        self.process = self.reader = None

    async def start(self):
        (self.folder / "Image").write_bytes(self.kernel)
        for name in (self.server, self.client):
            ip("netns", "add", name)
            # An address is good at once: nobody else is there to have it already.
            no_dad = "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad"
            subprocess.run(["ip", "netns", "exec", name, "sh", "-c", no_dad], check=True, timeout=60)
        ip("-n", self.server, "link", "add", "v0", "address", SERVER_MAC, "type", "veth", "peer", "name", "v1")
        ip("-n", self.server, "link", "set", "v1", "netns", self.client)
        ip("-n", self.client, "link", "set", "v1", "address", MACS[0])
        for address in ("10.77.0.1/24", "fd77::1/64", "fd77::2/64"):
            ip("-n", self.server, "addr", "add", address, "dev", "v0")
        for address in (BOARD, STRANGER):
            ip("-n", self.client, "addr", "add", f"{address}/64", "dev", "v1")
        ip("-n", self.server, "link", "set", "v0", "up")
        ip("-n", self.client, "link", "set", "v1", "up")
        config = {"interface": "v0", "kernel": str(self.folder / "Image"), "macs": MACS, "address6": BOARD}
        self.process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.server, sys.executable, str(Path(__file__).with_name("ipv6_serve.py")),
            json.dumps(config), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.reader = asyncio.create_task(self.read())
        await self.event("ready")

    async def read(self):
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))
            self.changed.set()

    async def event(self, name, within_s=60.0, **details):
        """The first event of this name with these details."""
        async with asyncio.timeout(within_s):
            while True:
                for event in self.events:
                    if event["event"] == name and details.items() <= event.items():
                        return event
                self.changed.clear()
                await self.changed.wait()

    async def run(self, *command):
        """Exit code and output of a program at the client's end."""
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.client, *map(str, command),
            cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(60):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, output

    async def curl(self, source, path, *, asked="fd77::1", scheme="http"):
        """Exit code and output of curl, asking from one of the client's addresses."""
        port = f":{PORT}" if scheme == "http" else ""
        where = f"{scheme}://[{asked.replace('%', '%25')}]{port}/{path}"
        # curl cannot bind to a link-local address; there the interface has only one.
        bound = [] if "%" in asked else ["--interface", source]
        return await self.run("curl", "-gsf", "--path-as-is", "--max-time", "10", *bound, where)

    async def stop(self):
        if self.process is not None:
            self.process.stdin.close()
            try:
                async with asyncio.timeout(60):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
            await self.reader
        for name in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=60, check=False)


@pytest.fixture
async def network(tmp_path):
    net = Network(tmp_path)
    try:
        await net.start()
        yield net
    finally:
        await net.stop()


async def test_a_board_gets_its_tree_at_every_address_of_ours(network):
    for asked in ASKED:
        source = LINK_LOCAL if "%" in asked else BOARD
        for scheme in ("http", "tftp"):
            assert await network.curl(source, "kernel", asked=asked, scheme=scheme) == (0, network.kernel), asked
            await network.event("FileSent", board="board1", client=source, via=scheme, size_bytes=len(network.kernel))
            code, config = await network.curl(source, PXE, asked=asked, scheme=scheme)
            assert code == 0
            assert b"boardhand.board=board1 " in config
            assert b"boardhand.secret=" in config


@pytest.mark.parametrize(
    "command",
    [
        ["tftp", "-6", "-m", "octet", "fd77::2", "69", "-c", "get", "kernel", "got"],
        ["atftp", "-g", "-r", "kernel", "-l", "got", "fd77::2", "69"],
        ["atftp", "--option", "blksize 1428", "--option", "windowsize 8", "-g", "-r", "kernel", "-l", "got", "fd77::1"],
        ["atftp", "-g", "-r", "kernel", "-l", "got", f"{OF_SERVER}%v1", "69"],
        ["wget", "-6", "-q", "-O", "got", f"http://[fd77::2]:{PORT}/kernel"],
    ],
    ids=["tftp-hpa", "atftp", "atftp windowed", "atftp link-local", "wget"],
)
async def test_other_clients(network, command):
    ip("-n", network.client, "addr", "del", f"{STRANGER}/64", "dev", "v1")  # so that it asks from the board's
    code, said = await network.run(*command)
    assert code == 0, said
    assert (network.folder / "got").read_bytes() == network.kernel
    sent = await network.event("FileSent")
    assert (sent["board"], sent["client"]) == ("board1", LINK_LOCAL if "%" in command[-2] else BOARD)


async def test_every_board_gets_its_own_and_strangers_nothing(network):
    ip("-n", network.client, "addr", "del", f"{LINK_LOCAL}/64", "dev", "v1")
    ip("-n", network.client, "addr", "add", f"{OF_BOARD2}/64", "dev", "v1")
    code, config = await network.curl(OF_BOARD2, "pxelinux.cfg/default", asked=ASKED[2])
    assert code == 0
    assert b"boardhand.board=board2 " in config
    refused = [
        (OF_BOARD2, PXE, ASKED[2], "board2", "another board's"),
        (OF_BOARD2, "board1/kernel", ASKED[2], "board2", "another board's"),
        (BOARD, "board2/kernel", ASKED[0], "board1", "another board's"),
        # An unknown address: joining is open, but only for what DHCP has given an address.
        (STRANGER, "kernel", ASKED[0], None, "no board has this address"),
        (STRANGER, PXE, ASKED[1], None, "no board has this address"),
    ]
    for source, path, asked, board, reason in refused:
        for scheme, exit_code in (("http", 22), ("tftp", 69)):  # curl: an HTTP error; TFTP's access violation
            assert await network.curl(source, path, asked=asked, scheme=scheme) == (exit_code, b""), (path, scheme)
            name = f"/{path}" if scheme == "http" else path
            told = await network.event("FileRefused", client=source, via=scheme, path=name)
            assert told["board"] == board
            assert reason in told["reason"]


RAW = """
import socket, sys
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.settimeout(60)
sock.bind(("fd77::11", 0))
for asked in ("fd77::2", "fd77::1"):
    sock.sendto(b"\\0\\1kernel\\0octet\\0", (asked, 69))
    data, peer = sock.recvfrom(600)
    print(asked, peer[0], data[:4].hex())
    sock.sendto(b"\\0\\5\\0\\0enough\\0", peer)
"""


async def test_replies_come_from_the_address_that_was_asked(network):
    code, said = await network.run(sys.executable, "-c", RAW)
    assert code == 0, said
    assert said.decode().splitlines() == ["fd77::2 fd77::2 00030001", "fd77::1 fd77::1 00030001"]


def test_the_address_of_a_mac_is_the_kernel_s_own(tmp_path):
    name = f"bh-{os.getpid()}-6k"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "add", "d0", "address", MACS[0], "type", "veth", "peer", "name", "d1")
        ip("-n", name, "link", "set", "d1", "up")
        ip("-n", name, "link", "set", "d0", "up")
        found, ends = [], time.monotonic() + 60
        while not found and time.monotonic() < ends:  # the kernel makes it some time after the link is up
            said = subprocess.run(
                ["ip", "-n", name, "-j", "-6", "addr", "show", "dev", "d0"], check=True, capture_output=True, timeout=60
            ).stdout
            found = [IPv6Address(entry["local"]) for entry in (json.loads(said) or [{}])[0].get("addr_info", [])]
    finally:
        ip("netns", "del", name)
    assert found == [link_local(MACS[0])]
