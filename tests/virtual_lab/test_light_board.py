"""Light boards' power switch with the agent's QMP driver, and their steps."""

import asyncio
import json

import pytest

from agent.power.drivers.qmp import OUTLET, QmpDriver
from agent.power.kinds.qmp import QmpSettings
from virtual_lab import light_steps
from virtual_lab.light_power import PowerSwitch, RunState
from wire.phases import Power


class Machine:
    def __init__(self):
        self.told = []

    def power_on(self):
        self.told.append("on")

    def power_off(self):
        self.told.append("off")


@pytest.fixture
async def switch(tmp_path):
    made = PowerSwitch(tmp_path / "s.qmp", Machine())
    await made.start()
    yield made
    await made.stop()
    assert not (tmp_path / "s.qmp").exists()


async def test_the_agents_driver_switches_and_reads_back(switch, tmp_path):
    driver = QmpDriver("lpower-1", QmpSettings(driver="qmp", socket=tmp_path / "s.qmp"))
    assert await driver.get(OUTLET) is Power.OFF
    for on, read in ((True, Power.ON), (True, Power.ON), (False, Power.OFF), (False, Power.OFF), (True, Power.ON)):
        await driver.set(OUTLET, on)
        assert await driver.get(OUTLET) is read
    assert switch._machine.told == ["on", "off", "on"]
    switch.guest_ended()
    assert await driver.get(OUTLET) is Power.OFF
    await driver.set(OUTLET, True)
    assert switch.state is RunState.RUNNING
    assert switch._machine.told == ["on", "off", "on", "on"]


async def ask(path, *lines):
    reader, writer = await asyncio.open_unix_connection(path)
    assert "QMP" in json.loads(await reader.readline())
    for line in lines:
        writer.write(line + b"\n")
    answers = [json.loads(await asyncio.wait_for(reader.readline(), 60)) for _ in lines]
    writer.close()
    return answers


async def test_nonsense_is_answered_and_the_switch_lives(switch, tmp_path):
    bad = (b"{", b"[]", b"7", b'{"execute": 1}', b'{"execute": "quit"}')
    for answer in await ask(tmp_path / "s.qmp", *bad):
        assert "error" in answer
    [answer] = await ask(tmp_path / "s.qmp", b'{"execute": "query-status", "id": 4}')
    assert answer == {"return": {"status": "prelaunch", "running": False, "singlestep": False}, "id": 4}


async def test_a_reset_of_a_running_board_restarts_it(switch, tmp_path):
    switch._commands["cont"]()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s.qmp")
    await reader.readline()
    writer.write(b'{"execute": "system_reset"}\n')
    assert "return" in json.loads(await asyncio.wait_for(reader.readline(), 60))
    assert json.loads(await asyncio.wait_for(reader.readline(), 60))["event"] == "RESET"
    writer.close()
    assert switch._machine.told == ["on", "off", "on"]


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("echo a b; echo 'c  d'", 0, "a b\nc  d\n"),
        ("false && echo never\necho ever", 0, "ever\n"),
        ("echo x; false", 1, "x\n"),
        ("exit 300; echo never", 300 & 255, ""),
        ("sleep 0.01 && exit 3", 3, ""),
        ("", 0, ""),
        ("cat /etc/passwd", 127, "light board: cat: not found (it has echo, sleep, true, false, exit)\n"),
        ("sleep", 2, "light board: sleep: a number is needed\n"),
        ("echo 'x", 2, "light board: No closing quotation\n"),
    ],
)
async def test_steps_are_played(script, code, output):
    said = []
    assert await light_steps.play(script, said.append) == code
    assert "".join(said) == output
