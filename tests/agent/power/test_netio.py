"""The NETIO driver against a virtual device on loopback."""

import pytest
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.netio import KIND, NetioSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from wire.phases import Power


@pytest.fixture
async def connect():
    context, queues = DriverContext(), []

    def make(url, **changes):
        settings = NetioSettings(driver="netio", url=url, **{"timeout_s": 10.0, **changes})
        queue = ControllerQueue("netio", KIND.driver("netio", settings, context))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()
    await context.close()


async def test_switch_read_back_and_watts(connect):
    async with PlugServer(outlets=4) as plug:
        queue = connect(plug.url)
        await queue.set("3", True)
        assert plug.edges == [("3", True)]
        assert await queue.get("3") is Power.ON
        assert await queue.read("3") == 12.0
        plug.requests.clear()
        found = await queue.get_many(["1", "3", "9"])
        assert (found["1"], found["3"]) == (Power.OFF, Power.ON)
        assert isinstance(found["9"], ConfigurationError) and "it has 1, 2, 3, 4" in str(found["9"])
        assert await queue.read_many(["1", "3", "9"]) == {"1": 0.0, "3": 12.0, "9": None}
        assert len(plug.requests) == 2
        assert [(d.outlet, d.name, d.power) for d in await queue.describe()][2] == ("3", "output_3", Power.ON)
        assert "24:A4:2C:00:00:01" in await queue.identify()
        await queue.set("3", False)
        assert plug.on["3"] is False
        plug.metered = False
        assert await queue.read("3") is None


async def test_accounts_for_writing_and_reading(connect, tmp_path, monkeypatch):
    writing = tmp_path / "write"
    writing.write_text("w")
    monkeypatch.setenv("NETIO_READ", "r")
    gate = LoginGate("basic", {"netio": "w", "reader": "r"})
    async with PlugServer(gate=gate, readers=frozenset({"reader"})) as plug:
        both = {"read_username": "reader", "read_password_env": "NETIO_READ"}
        queue = connect(plug.url, username="netio", password_file=writing, **both)
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        only_read = connect(plug.url, username="reader", password_env="NETIO_READ")
        assert await only_read.get("1") is Power.ON
        with pytest.raises(AuthenticationError, match=r"netio:1: .*does not allow this to reader"):
            await only_read.set("1", False)
        writing.write_text("no")
        with pytest.raises(AuthenticationError, match=r"refuses netio"):
            await queue.set("1", False)
        assert plug.on["1"] is True


async def test_errors_are_typed(connect):
    async with PlugServer(outlets=2, refusing={"2"}) as plug:
        queue = connect(plug.url)
        with pytest.raises(ConfigurationError, match=r"netio:5: has no such outlet; it has 1, 2"):
            await queue.set("5", True)
        with pytest.raises(ConfigurationError, match=r"netio:0: .*number from 1"):
            await queue.get("0")
        with pytest.raises(RefusedError, match=r"netio:2: .*HTTP 500"):
            await queue.set("2", True)
        for body, text in (
            ("<html>", "JSON was expected"),
            ("[]", "no JSON object"),
            ('{"Outputs": {"1": 1}}', "no list of Outputs"),
            ('{"Outputs": [{"State": 1}]}', "no list of Outputs"),
            ('{"Outputs": [{"ID": 1, "State": "on"}]}', "neither 0 nor 1"),
            ('{"Outputs": [{"ID": 1, "State": true}]}', "neither 0 nor 1"),
        ):
            plug.answers["/netio.json"] = (200, body, {})
            with pytest.raises(ConfigurationError, match=text):
                await queue.get("1")
        plug.answers["/netio.json"] = (200, '{"Outputs": [{"ID": 1, "State": 2}]}', {})
        assert await queue.get("1") is Power.UNKNOWN
        plug.answers["/netio.json"] = (404, "", {})
        with pytest.raises(ConfigurationError, match=r"switch on its JSON API"):
            await queue.get("1")
    with pytest.raises(UnreachableError):
        await queue.get("1")


def test_settings_are_strict():
    good = {"driver": "netio", "url": "http://10.0.0.2"}
    assert NetioSettings.model_validate({**good, "url": "http://10.0.0.2:8080/"}).url == "http://10.0.0.2:8080"
    for wrong in (
        {"read_username": "r"},
        {"read_password_env": "X"},
        {"read_username": "a:b", "read_password_env": "X"},
    ):
        with pytest.raises(ValidationError, match=r"read_"):
            NetioSettings.model_validate({**good, **wrong})
