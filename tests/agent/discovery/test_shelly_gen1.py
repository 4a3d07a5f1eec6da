"""Shelly devices of the first generation: found, written as `rest`, and switched by what was written."""

from ipaddress import ip_address

import pytest

from agent.discovery.known import http, known_devices
from agent.discovery.settings_text import Additions, inserted, named
from agent.discovery.shellies import ShellyFinder
from agent.power.driver_kind import DriverContext
from agent.power.drivers.rest import make
from agent.power.kinds.rest import RestSettings
from agent.settings import load
from tests.agent.discovery.old_shelly import OldShellyDouble
from wire.phases import Power


async def look(shelly):
    async with ShellyFinder(shelly.port, timeout_s=20.0) as finder:
        return await finder.look(ip_address("127.0.0.1"))


async def test_one_is_written_and_what_was_written_switches_it(tmp_path):
    async with OldShellyDouble() as shelly:
        found = await look(shelly)
        assert shelly.asked == ["/status"], "only questions"
        assert (found.stem, found.outlets, found.unwritten) == ("shelly-ddeeff", ("0",), "")
        path = tmp_path / "settings.toml"
        head = f'[agent]\nname = "a"\nstate_dir = "{tmp_path}"\n'
        path.write_text(inserted(head, Additions(named([found], ()))))
        settings = load(path).controllers["shelly-ddeeff"]
        context = DriverContext()
        driver = make("shelly-ddeeff", settings, context)
        try:
            assert [one.outlet for one in await driver.describe()] == ["0"]
            await driver.set("0", True)
            assert await driver.get("0") is Power.ON
            assert await driver.read("0") == 7.5
            await driver.set("0", False)
            assert await driver.get("0") is Power.OFF
        finally:
            await driver.close()
            await context.close()
        assert shelly.turns == [(0, "on"), (0, "off")]


async def test_a_second_look_knows_it_by_the_urls_of_its_requests():
    async with OldShellyDouble() as shelly:
        found = await look(shelly)
        table = {"controllers": {"plug": dict(found.keys)}}
        assert http("127.0.0.1", shelly.port) in known_devices(table, lambda host: [host])


@pytest.mark.parametrize(
    ("kind", "relays", "metered"),
    [("SHSW-1", 1, False), ("SHSW-25", 2, True), ("SHSW-21", 2, False), ("NEW-4", 4, False)],
)
async def test_relays_are_counted_and_meters_only_where_each_has_one(kind, relays, metered):
    async with OldShellyDouble(kind, relays) as shelly:
        found = await look(shelly)
    assert found.outlets == tuple(map(str, range(relays)))
    assert ("watts" in found.keys) is metered
    RestSettings.model_validate(found.keys)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (OldShellyDouble("SHSW-25", 2, mode="roller"), "roller shutter"),
        (OldShellyDouble("SHDM-2", 0, lights=[{"ison": False}]), "no relay"),
        (OldShellyDouble("SHHT-1", 0), "no relay"),
        (OldShellyDouble("NEW-4", 4, password="Basic x"), "asks for its password"),
    ],
)
async def test_what_is_not_written_says_why(device, why):
    async with device as shelly:
        found = await look(shelly)
        assert shelly.turns == []
    assert why in found.unwritten
    assert found.keys == {}


async def test_one_with_a_password_is_known_by_its_type_and_not_asked():
    async with OldShellyDouble("SHSW-25", 2, password="Basic x") as shelly:
        found = await look(shelly)
        assert shelly.asked == []
    assert found.outlets == ("0", "1")
    assert 'auth = "basic"' in found.hints[0]
    assert "relay mode" in found.hints[1]


async def test_a_status_that_is_garbled_or_none_is_not_guessed_at():
    async with OldShellyDouble(relays="garbled") as shelly:
        assert "no relay" in (await look(shelly)).unwritten
        shelly.on = None
        assert "did not tell its status" in (await look(shelly)).unwritten
