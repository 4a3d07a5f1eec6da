"""The Redfish driver, with the real sushy, against a virtual service on loopback."""

import asyncio
import ssl

import pytest

import agent.power.drivers.redfish as redfish_module
from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.redfish import KIND, RedfishSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from wire.phases import Power

SYSTEM = "/redfish/v1/Systems/1"


@pytest.fixture
async def connect():
    queues = []

    def make(url, **changes):
        settings = RedfishSettings(driver="redfish", url=url, **{"timeout_s": 10.0, **changes})
        queue = ControllerQueue("bmc", KIND.driver("bmc", settings, DriverContext()))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def test_switch_read_back_watts_and_identity(connect):
    async with PlugServer(outlets=2) as plug:
        queue = connect(plug.url)
        assert await queue.get("2") is Power.OFF
        await queue.set("2", True)
        await queue.set("2", True)
        assert await queue.get("2") is Power.ON
        assert await queue.read("2") == 12.5
        await queue.set("2", False)
        assert plug.resets == [("2", "On"), ("2", "ForceOff")], "never graceful, and not what is so already"
        assert [(d.outlet, d.name, d.power) for d in await queue.describe()] == [
            ("1", "system 1", Power.OFF),
            ("2", "system 2", Power.OFF),
        ]
        assert await queue.identify() == "redfish 1.5.0: virtual strip, by its service root"
        plug.metered = False
        assert await queue.read("2") is None


@pytest.mark.parametrize("state", ["PoweringOn", "PoweringOff", "Paused", "Sideways"])
async def test_in_between_is_unknown(connect, state):
    async with PlugServer(outlets=1) as plug:
        plug.power_states["1"] = state
        assert await connect(plug.url).get("1") is Power.UNKNOWN


async def test_accounts(connect, tmp_path):
    file = tmp_path / "password"
    file.write_text("s3cret")
    async with PlugServer(gate=LoginGate("basic", {"root": "s3cret"})) as plug:
        queue = connect(plug.url, username="root", password_file=file)
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        file.write_text("wr0ng")
        refused = plug.gate.refused
        with pytest.raises(AuthenticationError, match=r"bmc:1: refuses root \(HTTP 401\)") as caught:
            await queue.get("1")
        assert "wr0ng" not in str(caught.value)
        assert plug.gate.refused - refused == 1
        file.write_text("s3cret")
        assert await queue.get("1") is Power.ON
        with pytest.raises(AuthenticationError, match=r"without an account"):
            await connect(plug.url).get("1")


async def test_errors_are_typed(connect):
    async with PlugServer(outlets=2, refusing={"2"}) as plug:
        queue = connect(plug.url)
        with pytest.raises(ConfigurationError, match=r"bmc:9: has no such system; it has 1, 2"):
            await queue.set("9", True)
        with pytest.raises(RefusedError, match=r"bmc:2: .*the system refuses"):
            await queue.set("2", True)
        for body in ("<html>", "[]", '{"PowerState": "On"}', '{"Id": "1", "PowerState": 3}'):
            plug.answers[SYSTEM] = (200, body, {})
            with pytest.raises(ConfigurationError, match=r"bmc:1: .*not Redfish's"):
                await queue.set("1", True)
        plug.answers[SYSTEM] = (503, "{}", {})
        with pytest.raises(UnreachableError, match=r"bmc:1: .*"):
            await queue.get("1")
        plug.answers[SYSTEM] = (404, "", {})
        with pytest.raises(ConfigurationError, match=r"check outlet and url"):
            await queue.get("1")
        del plug.answers[SYSTEM]
        graceful = '{"Id": "1", "PowerState": "On", "Actions": {"#ComputerSystem.Reset": {"target": "/x",'
        graceful += '"ResetType@Redfish.AllowableValues": ["GracefulShutdown"]}}}'
        plug.answers[SYSTEM] = (200, graceful, {})
        with pytest.raises(ConfigurationError, match=r"offers no ForceOff, only GracefulShutdown"):
            await queue.set("1", False)
        plug.answers["/redfish/v1/"] = (200, "{}", {})
        with pytest.raises(ConfigurationError, match=r"not Redfish's"):
            await connect(plug.url).get("1")


async def test_a_service_that_hangs_gets_one_try_and_blocks_nothing(connect):
    async with PlugServer() as plug:
        queue = connect(plug.url, timeout_s=1.0)
        assert await queue.get("1") is Power.OFF
        plug.requests.clear()
        plug.deaf = True
        ticks = 0
        hanging = asyncio.create_task(queue.set("1", True))
        while not hanging.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(UnreachableError, match=r"bmc:1: "):
            hanging.result()
        assert ticks > 5
        assert len(plug.requests) == 1, "sushy itself would have tried three times"
        plug.deaf = False
        assert await queue.get("1") is Power.OFF
        url = plug.url
    with pytest.raises(UnreachableError):
        await connect(url).get("1")


async def test_tls_is_checked(connect, certificates):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.server_cert, certificates.server_key)
    async with PlugServer(tls=tls) as plug:
        assert await connect(plug.url, ca_file=certificates.ca).get("1") is Power.OFF
        with pytest.raises(ConfigurationError, match=r"no TLS"):
            await connect(plug.url).get("1")
        with pytest.raises(ConfigurationError, match=r"ca_file .* is not there"):
            await connect(plug.url, ca_file=certificates.ca.with_name("none.crt")).get("1")


async def test_without_the_extra(connect, monkeypatch):
    monkeypatch.setattr(redfish_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"install boardhand\[redfish\]"):
        await connect("http://127.0.0.1:9").get("1")
