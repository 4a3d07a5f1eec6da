"""Foreign DHCP clients in a network namespace of our own: busybox udhcpc, and Debian's U-Boot in QEMU. Needs root."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAC = "52:54:00:77:00:01"
UBOOT = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)


class Network:
    """A namespace for the server, and the programs in it."""

    def __init__(self):
        self.server = f"bh-{os.getpid()}-s"
        self.client = f"bh-{os.getpid()}-c"
        self.events = []
        self.processes = []
        self.changed = asyncio.Event()
        self.reader = None

    async def spawn(self, namespace, *command, **more):
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", namespace, *map(str, command), **{"stdin": asyncio.subprocess.PIPE, **more}
        )
        self.processes.append(process)
        return process

    async def serve(self, **config):
        script = Path(__file__).with_name("serve.py")
        process = await self.spawn(
            self.server, sys.executable, script, json.dumps(config), stdout=asyncio.subprocess.PIPE
        )
        self.reader = asyncio.create_task(self.read(process))
        await self.event("ready")

    async def read(self, process):
        while line := await process.stdout.readline():
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

    async def close(self):
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
        if self.reader is not None:
            await self.reader
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, timeout=60, check=False)


@pytest.fixture
async def network():
    net = Network()
    ip("netns", "add", net.server)
    ip("netns", "add", net.client)
    ip("-n", net.server, "link", "set", "lo", "up")
    yield net
    await net.close()


@pytest.fixture
def files(tmp_path):
    kernel, initrd = tmp_path / "Image", tmp_path / "initrd.img"
    kernel.write_bytes(os.urandom(300_000))
    initrd.write_bytes(os.urandom(100_000))
    return {"kernel": str(kernel), "initrd": str(initrd)}


@pytest.fixture
def veth(network):
    ip("-n", network.server, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("-n", network.server, "link", "set", "v1", "netns", network.client)
    ip("-n", network.server, "addr", "add", "10.77.0.1/24", "dev", "v0")
    ip("-n", network.server, "link", "set", "v0", "up")
    return network


@pytest.fixture
def udhcpc(veth, tmp_path):
    """busybox udhcpc as the client with some MAC; returns what it learned, or None when nobody answered."""
    script = tmp_path / "learned.sh"
    script.write_text(
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\nenv > "$(dirname "$0")/learned.bound"\n'
        'ip addr flush dev "$interface"; ip addr add "$ip/$mask" dev "$interface"\n'  # a RELEASE needs an address
    )
    script.chmod(0o755)

    async def run(mac, *flags):
        (tmp_path / "learned.bound").unlink(missing_ok=True)
        ip("-n", veth.client, "link", "set", "v1", "down")
        ip("-n", veth.client, "link", "set", "v1", "address", mac)
        ip("-n", veth.client, "link", "set", "v1", "up")
        process = await veth.spawn(
            veth.client, "busybox", "udhcpc", "-i", "v1", "-f", "-q", "-n", "-t", 3, "-T", 1, "-s", script, *flags,
            "-O", "tftp", "-O", "bootfile", "-O", "hostname", stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(60):
            await process.wait()
        learned = tmp_path / "learned.bound"
        if process.returncode != 0 or not learned.exists():
            return None
        return dict(line.partition("=")[::2] for line in learned.read_text().splitlines())

    return run


async def test_udhcpc_gets_its_reserved_address(veth, udhcpc, files):
    await veth.serve(interface="v0", mac=MAC, **files)
    for flags in ((), ("-B",), ("-r", "10.77.0.77")):  # plain, with the broadcast flag, wanting a wrong address
        learned = await udhcpc(MAC, *flags)
        assert learned is not None
        told = {key: learned[key] for key in ("ip", "subnet", "router", "serverid", "lease", "hostname", "siaddr")}
        assert told == {
            "ip": "10.77.0.11",
            "subnet": "255.255.255.0",
            "router": "10.77.0.1",
            "serverid": "10.77.0.1",
            "lease": "600",
            "hostname": "board1",
            "siaddr": "10.77.0.1",
        }
        assert learned["boot_file"] == learned["bootfile"] == "boot.scr.uimg"
        assert learned["tftp"] == "10.77.0.1"
    await veth.event("DhcpSeen", mac=MAC, board="board1", message_type="REQUEST", answer="ACK", address="10.77.0.11")


async def test_udhcpc_releases(veth, udhcpc, files, tmp_path):
    await veth.serve(interface="v0", mac=MAC, **files)
    assert await udhcpc(MAC) is not None
    process = await veth.spawn(  # without -q: it holds the lease until it is told to end
        veth.client, "busybox", "udhcpc", "-i", "v1", "-f", "-n", "-R", "-s", tmp_path / "learned.sh",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        while b"obtained" not in await process.stderr.readline():
            pass
    process.terminate()
    await veth.event("DhcpSeen", message_type="RELEASE", board="board1")


async def test_a_stranger_hears_nothing_until_joining_opens(veth, udhcpc, files):
    await veth.serve(interface="v0", mac=MAC, **files)
    assert await udhcpc("52:54:00:99:00:01") is None
    event = await veth.event("DhcpSeen", mac="52:54:00:99:00:01")
    assert (event["board"], event["address"], event["answer"]) == (None, None, "")


async def test_a_stranger_joins(veth, udhcpc, files):
    await veth.serve(interface="v0", mac=MAC, joining=True, **files)
    learned = await udhcpc("52:54:00:99:00:01")
    assert learned["ip"].startswith("10.77.0.10") or learned["ip"] == "10.77.0.110"
    assert "hostname" not in learned
    again = await udhcpc("52:54:00:99:00:01")
    assert again["ip"] == learned["ip"]


@pytest.mark.parametrize("uboot_env", [[], [["tftpwindowsize", "16"]]], ids=["lockstep", "window"])
async def test_uboot_fetches_its_files(network, files, tmp_path, uboot_env):
    """The default environment of Debian's U-Boot: DHCP, the script image, the PXE file by MAC, initrd and kernel."""
    ip("-n", network.server, "tuntap", "add", "dev", "tap0", "mode", "tap")
    ip("-n", network.server, "addr", "add", "10.77.0.1/24", "dev", "tap0")
    ip("-n", network.server, "link", "set", "tap0", "up")
    await network.serve(interface="tap0", mac=MAC, uboot_env=uboot_env, **files)
    console = tmp_path / "console"
    assert shutil.which("qemu-system-aarch64"), "install qemu-system-arm"
    await network.spawn(
        network.server, "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", 256, "-display", "none",
        "-monitor", "none", "-serial", f"file:{console}", "-bios", UBOOT,
        "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile=,disable-legacy=on",
    )  # fmt: skip
    try:
        discover = await network.event("DhcpSeen", 40, mac=MAC, message_type="DISCOVER", answer="OFFER")
        assert discover["vendor_class"] == "U-Boot.armv8"
        own = {"board": "board1", "client": "10.77.0.11"}
        await network.event("FileSent", 20, path="boot.scr.uimg", role="config", **own)
        await network.event("FileSent", 20, path="pxelinux.cfg/01-52-54-00-77-00-01", role="config", **own)
        await network.event("FileSent", 20, path="initrd", role="initrd", size_bytes=100_000, **own)
        await network.event("FileSent", 20, path="kernel", role="kernel", size_bytes=300_000, **own)
        async with asyncio.timeout(60):  # it cannot start octets of chance, and says so
            while "Image magic" not in console.read_text(errors="replace"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"events: {network.events}\nconsole: {console.read_text(errors='replace')}")
    text = console.read_text(errors="replace")
    assert "Executing script" in text
    assert "boardhand.board=board1" in text
    refused = [event for event in network.events if event["event"] == "FileRefused" and not event["missing"]]
    assert refused == []
