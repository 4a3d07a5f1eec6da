"""The Digital Loggers driver against a virtual device on loopback."""

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.dli import KIND, DliSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from wire.phases import Power

ALL = "/restapi/relay/outlets/all;/physical_state/"


@pytest.fixture
async def connect():
    context, queues = DriverContext(), []

    def make(url, **changes):
        settings = DliSettings(driver="dli", url=url, **{"timeout_s": 10.0, **changes})
        queue = ControllerQueue("dli", KIND.driver("dli", settings, context))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()
    await context.close()


async def test_what_is_printed_on_the_device_is_switched(connect, monkeypatch):
    monkeypatch.setenv("DLI", "1234")
    gate = LoginGate("md5", {"admin": "1234"})
    async with PlugServer(outlets=8, gate=gate) as plug:
        queue = connect(plug.url, username="admin", password_env="DLI")
        await queue.set("1", True)
        await queue.set("8", True)
        assert plug.edges == [("1", True), ("8", True)]
        assert ("PUT", "/restapi/relay/outlets/0/state/") in plug.requests
        assert await queue.get("1") is Power.ON
        assert await queue.get("2") is Power.OFF
        assert await queue.read("1") is None
        found = await queue.get_many(["1", "2", "8", "9"])
        assert [found[name] for name in ("1", "2", "8")] == [Power.ON, Power.OFF, Power.ON]
        assert isinstance(found["9"], ConfigurationError) and "it has 8" in str(found["9"])
        assert await queue.read_many(["1"]) == {"1": None}
        described = await queue.describe()
        assert [(d.outlet, d.name, d.power) for d in described][::7] == [
            ("1", "Outlet 1", Power.ON),
            ("8", "Outlet 8", Power.ON),
        ]
        assert await queue.identify() == "dli: hostname lpc, version 1.11.24.0, by its REST API"
        monkeypatch.setenv("DLI", "wrong")
        with pytest.raises(AuthenticationError, match=r"dli:1: .*refuses admin"):
            await queue.set("1", False)
        assert plug.on["1"] is True


async def test_what_was_asked_for_is_not_taken_for_what_is(connect):
    async with PlugServer(outlets=1, lying={"1"}) as plug:
        queue = connect(plug.url)
        await queue.set("1", True)
        assert await queue.get("1") is Power.OFF, "`state` says true, `physical_state` does not"


async def test_errors_are_typed(connect):
    async with PlugServer(outlets=2, refusing={"2"}) as plug:
        queue = connect(plug.url)
        with pytest.raises(ConfigurationError, match=r"dli:3: .*HTTP 404"):
            await queue.set("3", True)
        with pytest.raises(ConfigurationError, match=r"dli:0: .*number from 1"):
            await queue.set("0", True)
        with pytest.raises(RefusedError, match=r"dli:2: .*unlock the outlet"):
            await queue.set("2", True)
        plug.answers["/restapi/relay/outlets/0/physical_state/"] = (200, '"on"', {})
        with pytest.raises(ConfigurationError, match=r"dli:1: .*state"):
            await queue.get("1")
        plug.answers[ALL] = (207, '[true, "x"]', {})
        found = await queue.get_many(["1", "2"])
        assert found["1"] is Power.ON
        assert isinstance(found["2"], ConfigurationError)
        plug.answers[ALL] = (207, "{}", {})
        found = await queue.get_many(["1"])
        assert isinstance(found["1"], ConfigurationError)
        plug.answers["/restapi/relay/outlets/all;/=name,physical_state/"] = (207, '["a", true, "b"]', {})
        with pytest.raises(ConfigurationError, match=r"by turns"):
            await queue.describe()
    with pytest.raises(UnreachableError):
        await queue.get("1")
