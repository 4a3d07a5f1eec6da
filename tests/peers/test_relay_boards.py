"""pdudaemon's and labgrid's own drivers switch our virtual relay boards: a second opinion on what these understand."""

import asyncio
from pathlib import Path

import pytest

from agent.power.driver_factory import DriverFactory
from agent.power.kinds.serial_relay import SerialRelaySettings
from virtual_lab.serial_relay import VirtualRelayBoard
from wire.phases import Power

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".cache" / "peers"

DRIVE = """
import sys
from pdudaemon.drivers.driver import PDUDriver
import pdudaemon.drivers.strategies
name, device, *steps = sys.argv[1:]
driver = PDUDriver.select(name)("relays", {"device": device})
for step in steps:
    word, port = step.split(":")
    driver.port_interaction(word, int(port))
print("done")
"""


HID = """
import sys
sys.path.insert(0, sys.argv[1])
import usb.core
from virtual_lab.hid_relay import VirtualHidRelay, VirtualUsb
board = VirtualHidRelay("1-2", 4, serial="ABCDE")
backend = VirtualUsb(VirtualHidRelay("1-1", 4, serial="OTHER"), board)
find = usb.core.find
usb.core.find = lambda **what: find(**{**what, "backend": backend})
"""

PDUDAEMON_HID = """
from pdudaemon.drivers.vusbhid import VUSBHID
driver = VUSBHID("relays", {"serial": "ABCDE"})
for word, port in (("on", 1), ("on", 3), ("off", 1)):
    driver.port_interaction(word, port)
print(board.on)
"""

LABGRID_HID = """
from labgrid.util.agents.usb_hid_relay import handle_get, handle_set
for port, state in ((1, True), (3, True), (1, False)):
    handle_set(1, board.address, port, state)
print([handle_get(1, board.address, port) for port in (1, 2, 3, 4)])
assert board.on == [False, False, True, False]
"""


async def run(peer, code, *arguments):
    """What a program says in the environment of one of the peers."""
    python = PEERS / peer / "bin" / "python"
    assert python.exists(), f"{python} is not there: run `make test` once"
    process = await asyncio.create_subprocess_exec(
        python, "-c", code, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return said.decode()


@pytest.mark.parametrize(("peer", "code"), [("pdudaemon", PDUDAEMON_HID), ("labgrid", LABGRID_HID)])
async def test_both_switch_our_virtual_hid_board(peer, code):
    said = await run(peer, HID + code, str(ROOT))
    assert said.splitlines()[-1] == "[False, False, True, False]"


@pytest.mark.parametrize(
    ("name", "protocol", "outlets", "first"),
    [
        ("NumatoUSB4", "numato", 4, 1),
        ("NumatoUSB16", "numato", 8, 1),
        ("NumatoUSB32", "numato", 32, 1),
        ("NumatoUSB64", "numato", 64, 1),
        ("devantech_USB-RLY08B", "devantech", 8, 1),
        ("conrad197720", "conrad", 16, 0),
    ],
)
async def test_pdudaemon_switches_and_our_driver_reads(name, protocol, outlets, first):
    last = outlets - 1 + first
    steps = [f"on:{first}", f"on:{first + 2}", f"on:{last}", f"off:{first}"]
    async with VirtualRelayBoard(protocol, outlets) as board:
        assert (await run("pdudaemon", DRIVE, name, board.device, *steps)).endswith("done\n")
        async with asyncio.timeout(60):
            while board.edges[-1:] != [(1, False)]:  # noqa: ASYNC110 - it may have commands to read yet
                await asyncio.sleep(0.01)
        assert [number for number, on in enumerate(board.on, 1) if on] == [3, outlets]
        ours = DriverFactory()(
            "relays",
            SerialRelaySettings(driver="serial_relay", protocol=protocol, device=board.device, outlets=outlets),
        )
        told = {item.outlet: item.power for item in await ours.describe()}
        await ours.close()
    assert [outlet for outlet, power in told.items() if power is Power.ON] == ["3", str(outlets)]
