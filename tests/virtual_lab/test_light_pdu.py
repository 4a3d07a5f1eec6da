"""Light boards on virtual PDUs: the agent's SNMP driver switches them and reads what they draw."""

import asyncio
import dataclasses
from contextlib import AsyncExitStack

import pytest

from agent.power.drivers.snmp import SnmpDriver
from agent.power.drivers.snmp_engine import EnginePool
from agent.power.kinds.snmp import SnmpSettings
from agent.settings import load
from virtual_lab import farm_plan, light_pdu
from virtual_lab.farm import _more_settings
from virtual_lab.farm_plan import FarmPlan
from virtual_lab.light_power import PowerSwitch, RunState
from virtual_lab.namespace import LabError
from virtual_lab.snmp_pdu_device import PduSettings
from wire.phases import Power


class Board:
    """Draws 4 W while it has power."""

    watts = 4

    def __init__(self, folder):
        self.told = []
        self.switch = PowerSwitch(folder / "s.qmp", self)

    def power_on(self):
        self.told.append("on")

    def power_off(self):
        self.told.append("off")


@pytest.fixture
def plan(tmp_path):
    lights = farm_plan.light_boards(30, on_pdus=True, boot_s=2.0)
    made = FarmPlan(
        folder=str(tmp_path), sockets=str(tmp_path / "s"), agent="lab", prefix="p", prefix_length=20, qemu="", uboot="",
        kernel="", initrd="", device_tree="", lights=lights,
    )  # fmt: skip
    made.light_kernel.write_bytes(b"x")
    made.pdu_community.write_text("private\n")
    return made


async def test_an_outlet_switches_its_board_and_reads_what_it_draws(tmp_path):
    board = Board(tmp_path)
    settings = PduSettings(outlets=2, model=farm_plan.PDU_MODEL, light=True)
    pdu = light_pdu.LightPdu(settings, boards={"2": board})
    pdu.hook = pdu.feed
    (tmp_path / "community").write_text("private\n")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pdu)
        made = SnmpSettings(
            driver="snmp", host="127.0.0.1", port=pdu.port, family="eaton-g3", community_file=tmp_path / "community"
        )
        driver = SnmpDriver("pdu", made, EnginePool())
        stack.push_async_callback(driver.close)
        for on, power, watts in ((True, Power.ON, 4), (False, Power.OFF, 0), (True, Power.ON, 4)):
            await driver.set("2", on)
            assert await driver.get("2") is power
            assert await driver.read("2") == watts
            assert await driver.read("1") == 0, "nothing hangs on it"
        await asyncio.sleep(0)
        assert board.told == ["on", "off", "on"]
        # It powered itself off; power that goes and comes starts it.
        board.switch.guest_ended()
        await driver.set("2", False)
        await driver.set("2", True)
        assert board.switch.state is RunState.RUNNING
        assert board.told == ["on", "off", "on", "on"]


def test_the_agent_takes_pdus_and_more_settings(plan):
    more = {"agent": {"meter_every_s": 1}, "boards": {"light-3": {"labels": {"arch": "armhf"}, "watts_idle": 2.5}}}
    plan = dataclasses.replace(plan, more=more)
    assert (plan.pdus, FarmPlan.from_json(plan.to_json())) == (2, plan)
    plan.agent_settings.write_text(farm_plan.agent_toml(plan))
    settings = load(plan.agent_settings)
    assert sorted(settings.controllers) == ["pdu-1", "pdu-2"]
    assert settings.boards["light-25"].outlets == ["pdu-2:1"]
    assert settings.agent.meter_every_s == 1
    assert (settings.boards["light-3"].labels, settings.boards["light-3"].watts_idle) == ({"arch": "armhf"}, 2.5)
    assert [light.boot_s for light in plan.lights[:5]] == [1.6, 1.8, 2.0, 2.2, 2.4]


@pytest.mark.parametrize("text", ["{", "[]", '{"agent": 5}', '{"boards": {"b": []}}', '{"mqtt": {}}'])
def test_more_settings_that_are_wrong_are_named(tmp_path, text):
    path = tmp_path / "more.json"
    path.write_text(text)
    with pytest.raises(LabError, match=r"--more-settings .*more\.json"):
        _more_settings(path)
