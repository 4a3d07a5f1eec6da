"""One foreign client at a time, powered on in a private network with our netboot server, and all that both said."""

import asyncio
import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from firmware_tools.debian_packages import cache_dir
from virtual_lab import boot_client_files, boot_clients
from virtual_lab.boot_clients import KINDS
from virtual_lab.child_process import child_environment

ADDRESS, MAC, BOARD = "10.77.0.11", "52:54:00:77:00:01", "board1"
UUID = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
BOOT_DEADLINE_S = 150.0
"""The slowest needs 25 s alone; on a build server with all its cores busy five times that."""
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][AB0]|.)")
_ARCH = {"arm64": "arm64", "armhf": "arm", "amd64": "x86_64", "riscv64": "riscv64"}
_times = []


class Client:
    """The inner process of `virtual_lab.boot_clients_inside` with one machine, off at first."""

    def __init__(self, plan):
        self.plan = plan
        self.events = []
        self.text = ""
        self.changed = asyncio.Event()
        self.process = self.reader = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "virtual_lab.boot_clients_inside", json.dumps(self.plan, default=str),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=child_environment(), limit=1 << 20,
        )  # fmt: skip
        self.complaints = asyncio.create_task(self.process.stderr.read())
        self.reader = asyncio.create_task(self.read())
        await self.event("ready")

    async def read(self):
        while line := await self.process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "console":
                self.text += _ESCAPES.sub("", event["text"].replace("\r", ""))
                self.marks(event["at"])
            self.events.append(event)
            self.changed.set()
        self.events.append({"event": "over"})
        self.changed.set()

    def marks(self, at):
        """What the console says of the way, at the time when it was said first."""
        for name, words in (("kernel", "Linux version"), ("userspace", "boardhand: init,"), ("done", "boot-client: d")):
            if words in self.text and not any(event["event"] == name for event in self.events):
                self.events.append({"event": name, "at": at})

    def find(self, name, **details):
        return [event for event in self.events if event["event"] == name and details.items() <= event.items()]

    async def event(self, name, within_s=BOOT_DEADLINE_S, *, count=1, **details):
        """The `count`th event of this name with these details."""
        await self.until(lambda: len(self.find(name, **details)) >= count, f"{name} {details}", within_s)
        return self.find(name, **details)[count - 1]

    async def says(self, words, within_s=BOOT_DEADLINE_S, *, count=1):
        await self.until(lambda: self.text.count(words) >= count, repr(words), within_s)

    async def until(self, condition, what, within_s):
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    if self.find("over"):
                        pytest.fail(f"{what}: it has ended: {(await self.complaints).decode()}\n{self.story()}")
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            pytest.fail(f"{what}: not within {within_s:g} s\n{self.story()}")

    def order(self, what, **when):
        """Have it done; with `at_file` and `after_s` in the middle of a transfer."""
        self.process.stdin.write(json.dumps({"do": what, **when}).encode() + b"\n")

    async def do(self, what):
        done = len(self.find("did", what=what))
        self.order(what)
        await self.event("did", what=what, count=done + 1)

    async def stats(self):
        await self.do("stats")
        return self.find("stats")[-1]

    def files(self, event="FileSent"):
        """The names that were sent to our board, in order, doubles included."""
        return [found["path"] for found in self.find(event, board=BOARD, client=ADDRESS)]

    def story(self):
        lines = [json.dumps(event) for event in self.events if event["event"] != "console"]
        return "\n".join([*lines[-60:], "--- console", self.text[-6000:]])

    async def close(self):
        if self.process is not None and self.process.returncode is None:
            self.process.stdin.close()
            try:
                async with asyncio.timeout(20):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        if self.reader is not None:
            await self.reader
            complaints = (await self.complaints).decode()
            assert "Traceback" not in complaints, complaints


@pytest.fixture(scope="session")
def boot_files(tmp_path_factory):
    """The files of a machine's kernel: fetched once for ever, built once for all tests."""
    made = {}

    def get(machine):
        if machine not in made:
            folder = tmp_path_factory.mktemp(machine.value)
            made[machine] = boot_client_files.get(machine, cache_dir(), folder, lambda *_: None)
        return made[machine]

    return get


@pytest.fixture
async def power_on(tmp_path, request):
    """Power on a machine that boots `files`; `profile` and `plan` change the profile and the rest."""
    clients = []

    async def start(machine, files, *, profile=None, on=True, **plan):
        missing = boot_clients.missing_packages((machine,))
        assert not missing, f"apt-get install --no-install-recommends {missing}"
        kind = KINDS[machine]
        whole = {
            "name": "test",
            "arch": _ARCH[kind.arch],
            "kernel": files.kernel,
            "initrd": files.initrd,
            "dtb": files.device_tree,
            "cmdline": f"console={kind.console} panic=-1",
            **(profile or {}),
        }
        folder = Path(tmp_path, BOARD)
        client = Client(
            {
                "machine": machine,
                "folder": folder,
                "profile": whole,
                "mac": MAC,
                "address": ADDRESS,
                "board": BOARD,
                "uuid": UUID,
                **plan,
            }
        )
        clients.append((client, machine))
        await client.start()
        if on:
            await client.do("power-on")
        return client

    yield start
    for client, machine in clients:
        _times.append((request.node.name, machine, moments(client)))
        await client.close()


def moments(client):
    """Seconds after power on, per step of the way."""
    steps = {
        "DHCP": client.find("DhcpSeen", answer="ACK"),
        "first file": client.find("FileSent"),
        "last file": client.find("FileSent")[-1:],
        **{name: client.find(name) for name in ("kernel", "userspace", "done")},
    }
    return {step: found[0]["at"] for step, found in steps.items() if found}


def pytest_terminal_summary(terminalreporter):
    if _times:
        terminalreporter.section("seconds from power on")
    for name, machine, at in _times:
        steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in at.items())
        terminalreporter.write_line(f"{name} ({machine}): {steps}")


@dataclasses.dataclass(frozen=True)
class Booted:
    """What a boot to userspace has shown."""

    cmdline: str
    sent: list


async def arrived(client, arch, version):
    """Wait for userspace; check that it is the kernel that we served, with our command line and network."""
    await client.says("boot-client: done")
    console = client.text
    words = re.search(r"boot-client: cmdline (.*)", console)[1]
    assert f"boot-client: kernel {version} on {arch}, host {BOARD}" in console
    assert f"boot-client: address {ADDRESS}/24" in console
    assert f"boardhand.board={BOARD} boardhand.agent=desk boardhand.mqtt=10.77.0.1:1883" in words
    assert re.search(r"boardhand\.secret=\S{16,}", words)
    return Booted(words, client.files())


@pytest.fixture
def userspace():
    return arrived
