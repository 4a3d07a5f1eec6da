"""The conformance kit on our own drivers, with each one's virtual device, or real QEMU."""

import asyncio
import json
import signal
import stat

import pytest

from agent.power import conformance
from agent.power.driver_factory import DriverFactory
from agent.power.driver_kind import DriverContext, find_kind
from agent.power.drivers.hid_device import UsbBackend
from virtual_lab.hid_relay import VirtualHidRelay, VirtualLcusHid, VirtualUsb, VirtualYkush
from virtual_lab.serial_cable import VirtualCable
from virtual_lab.serial_relay import VirtualRelayBoard
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu

SECRET, WRONG = "write-community-7", "wrong-community-9"


class Bench(conformance.DriverBench):
    """A driver made from settings, as the agent makes it."""

    def __init__(self, device, /, **settings):
        self.device = device
        self.settings = settings
        self.factory = DriverFactory(self.context())

    def context(self):
        return DriverContext()

    def make(self):
        kind = find_kind(self.settings["driver"])
        return self.factory("bench", kind.settings.model_validate(self.settings))

    async def truth(self, outlet):
        return self.device.on[int(outlet) - 1]

    async def edges(self, outlet):
        return len([at for at, _ in self.device.edges if at == int(outlet)])

    async def press(self, outlet, on):
        self.device.press(int(outlet), on)


class CableBench(Bench):
    async def truth(self, outlet):
        return self.device.on

    async def edges(self, outlet):
        return len(self.device.edges)

    async def press(self, outlet, on):
        self.device.press(on=on)

    async def silence(self):
        self.device.vanish()

    async def restore(self):
        self.device.come_back()


class BoardBench(Bench):
    outlets = ("1", "2", "4")

    async def silence(self):
        self.device.silent = True

    async def restore(self):
        self.device.silent = False


class VanishingBoardBench(BoardBench):
    """Its tty goes and comes again, with another number."""

    async def silence(self):
        self.device.vanish()

    async def restore(self):
        self.device.come_back()


class HidBench(Bench):
    outlets = ("1", "2")

    def context(self):
        self.usb = VirtualUsb(self.device)
        context = DriverContext()
        context.share(UsbBackend, lambda: UsbBackend(self.usb))
        return context

    async def silence(self):
        self.device.deaf = True

    async def restore(self):
        self.device.deaf = False


class PulledHidBench(HidBench):
    async def silence(self):
        self.usb.pull(self.device)

    async def restore(self):
        self.usb.plug(self.device)


class PduBench(Bench):
    outlets = ("1", "2")
    no_such_outlet = "99"
    secrets = (SECRET, WRONG)

    async def truth(self, outlet):
        return self.device.on[outlet]

    async def edges(self, outlet):
        return len([at for at, _ in self.device.edges if at == outlet])

    async def press(self, outlet, on):
        self.device.press(outlet, on)

    async def silence(self):
        self.device.deaf = True

    async def restore(self):
        self.device.deaf = False

    def make_unauthorised(self):
        kind = find_kind("snmp")
        settings = self.settings | {"community_file": self.settings["community_file"].with_name("wrong")}
        return self.factory("bench", kind.settings.model_validate(settings))


class ProgramBench(Bench):
    """`device` is a folder with a file for each outlet that is on."""

    outlets = ("1", "2")
    no_such_outlet = None

    async def truth(self, outlet):
        return (self.device / outlet).exists()

    async def edges(self, outlet):
        return None

    async def press(self, outlet, on):
        (self.device / outlet).touch() if on else (self.device / outlet).unlink(missing_ok=True)

    async def silence(self):
        (self.device / "deaf").touch()

    async def restore(self):
        (self.device / "deaf").unlink()


class QemuBench(Bench):
    """`device` is (process, QMP socket); the truth is asked for with nothing of ours."""

    async def truth(self, outlet):
        return (await self.qmp("query-status"))["running"]

    async def edges(self, outlet):
        return None

    async def press(self, outlet, on):
        await self.qmp("cont" if on else "stop")

    async def silence(self):
        self.device[0].send_signal(signal.SIGSTOP)

    async def restore(self):
        self.device[0].send_signal(signal.SIGCONT)

    async def qmp(self, command):
        reader, writer = await asyncio.open_unix_connection(self.device[1])
        try:
            await reader.readline()
            for each in ("qmp_capabilities", command):
                writer.write(json.dumps({"execute": each}).encode())
                while b'"return"' not in (line := await reader.readline()):
                    assert b'"error"' not in line, line
            return json.loads(line)["return"]
        finally:
            writer.close()


async def passes(bench, *, skipped=()):
    """All promises are kept; what was not looked at is known."""
    results = await conformance.check_driver(bench)
    assert {result.check for result in results if result.skipped} == set(skipped)
    await bench.factory.close()


@pytest.mark.parametrize("read_back", [True, False])
async def test_serial_cable(tmp_path, read_back):
    async with VirtualCable(link=tmp_path / "cable") as cable:
        bench = CableBench(cable, driver="serial_cable", device=cable.device, reply_timeout_s=0.3, read_back=read_back)
        await passes(bench, skipped={"only_the_named", "many", "secrets"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("numato", BoardBench),
        ("numato", VanishingBoardBench),
        ("lcus", BoardBench),
        ("lcus-lines", VanishingBoardBench),
        ("lcus-feedback", BoardBench),
        ("devantech", BoardBench),
        ("conrad", BoardBench),
    ],
)
async def test_serial_relay(tmp_path, name, kind):
    async with VirtualRelayBoard(name, 4, link=tmp_path / "relays") as board:
        bench = kind(
            board, driver="serial_relay", protocol=name.removesuffix("-lines"), device=board.device, outlets=4,
            reply_timeout_s=0.3,
        )  # fmt: skip
        bench.answers_set = kind is VanishingBoardBench or name not in {"lcus", "lcus-lines", "devantech"}
        await passes(bench, skipped={"secrets"})


async def test_serial_relay_that_never_answers(tmp_path):
    async with VirtualRelayBoard("lcus-mute", 4, link=tmp_path / "relays") as board:
        await passes(
            VanishingBoardBench(
                board, driver="serial_relay", protocol="lcus", device=board.device, outlets=4, read_back=False
            ),
            skipped={"secrets"},
        )


@pytest.mark.parametrize("kind", [HidBench, PulledHidBench])
@pytest.mark.parametrize(
    ("device", "settings"),
    [
        (VirtualHidRelay, {"driver": "hid_relay", "serial": "BITFT"}),
        (VirtualLcusHid, {"driver": "hid_relay", "protocol": "lcus", "outlets": 4}),
        (VirtualYkush, {"driver": "ykush", "path": "1-1"}),
    ],
    ids=["dcttech", "lcus", "ykush"],
)
async def test_hid(device, settings, kind):
    await passes(kind(device(), reply_timeout_s=0.3, **settings), skipped={"secrets"})


async def test_snmp(tmp_path):
    (tmp_path / "community").write_text(SECRET)
    (tmp_path / "wrong").write_text(WRONG)
    async with VirtualPdu(PduSettings(write_community=SECRET)) as pdu:
        bench = PduBench(
            pdu, driver="snmp", host="127.0.0.1", port=pdu.port, family="apc-rpdu2",
            community_file=tmp_path / "community", timeout_s=0.6, retries=0,
        )  # fmt: skip
        results = await conformance.check_driver(bench)
        assert {result.check for result in results if result.skipped} <= {"many"}
        await bench.factory.close()


async def test_command(tmp_path):
    folder, program = tmp_path / "outlets", tmp_path / "switch"
    folder.mkdir()
    program.write_text(
        "#!/bin/sh\ncd " + str(folder) + "\nif [ -e deaf ]; then exec sleep 60; fi\n"
        'case $1 in on) : > "$2";; off) rm -f "$2";; state) if [ -e "$2" ]; then echo on; else echo off; fi;; esac\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    words = {word: [str(program), word, "{outlet}"] for word in ("on", "off", "state")}
    await passes(
        ProgramBench(folder, driver="command", timeout_s=1.5, verify_deadline_s=2, **words),
        skipped={"unknown_outlet", "describe", "many", "secrets"},
    )


async def test_qmp(tmp_path, listening):
    path = tmp_path / "qmp"
    process = await asyncio.create_subprocess_exec(
        "qemu-system-aarch64", "-M", "none", "-S", "-no-shutdown", "-nographic", "-monitor", "none",
        "-qmp", f"unix:{path},server=on,wait=off", stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await listening(path)
        bench = QemuBench((process, path), driver="qmp", socket=path, timeout_s=1.0)
        for check in conformance.CHECKS:
            await conformance.run_check(check, bench)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()
