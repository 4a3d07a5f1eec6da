"""The Shelly driver, and what all HTTP drivers share, against a virtual plug on loopback."""

import asyncio
import ssl

import pytest
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.drivers.http_session import MAX_REPLY_BYTES, Login, SharedSession
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.shelly import KIND, ShellySettings
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from wire.phases import ErrorKind, Power, PowerAction


@pytest.fixture
async def connect():
    context, queues = DriverContext(), []

    def make(url, **changes):
        settings = ShellySettings(driver="shelly", url=url, **{"timeout_s": 10.0, **changes})
        queue = ControllerQueue("plug", KIND.driver("plug", settings, context))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()
    await context.close()


@pytest.fixture
def password(tmp_path):
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    return {"username": "admin", "password_file": file}


@pytest.fixture
async def listener():
    """A TCP server that answers every connection with the given bytes and then hangs up."""
    servers = []

    async def start(answer):
        async def talk(reader, writer):
            await reader.read(1)
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_switch_read_back_and_watts(connect):
    async with PlugServer(outlets=2) as plug:
        queue = connect(plug.url)
        assert await queue.get("1") is Power.OFF
        await queue.set("1", True)
        assert plug.on == {"1": False, "2": True}, "ids count from 0"
        assert await queue.get("1") is Power.ON
        assert await queue.read("1") == 12.5
        assert await queue.read("0") == 0.0
        plug.metered = False
        assert await queue.read("1") is None
        assert await queue.read_many(["0", "1"]) == {"0": None, "1": None}


async def test_describe_identify_and_all_in_one_question(connect):
    async with PlugServer(outlets=3) as plug:
        plug.press("3", on=True)
        queue = connect(plug.url)
        assert [(d.outlet, d.name, d.power) for d in await queue.describe()] == [
            ("0", "socket 1", Power.OFF),
            ("1", "socket 2", Power.OFF),
            ("2", "socket 3", Power.ON),
        ]
        assert "model virtual strip" in await queue.identify()
        plug.requests.clear()
        found = await queue.get_many(["0", "2", "7", "x"])
        assert (found["0"], found["2"]) == (Power.OFF, Power.ON)
        assert isinstance(found["7"], ConfigurationError) and "it has 0, 1, 2" in str(found["7"])
        assert isinstance(found["x"], ConfigurationError)
        assert len(plug.requests) == 1
        assert await queue.read_many(["0", "2", "7"]) == {"0": 0.0, "2": 12.5, "7": None}
        assert isinstance((await queue.get_many(["7"]))["7"], ConfigurationError)
        assert await queue.read_many(["2"]) == {"2": 12.5}


async def test_errors_of_the_device_are_typed(connect):
    async with PlugServer(outlets=1, refusing={"1"}) as plug:
        queue = connect(plug.url)
        with pytest.raises(ConfigurationError, match=r"plug:5: .*value 5 not found"):
            await queue.get("5")
        with pytest.raises(ConfigurationError, match=r"number from 0"):
            await queue.set("01", True)
        with pytest.raises(RefusedError, match=r"plug:0: Switch.Set: Switch is locked"):
            await queue.set("0", True)
        plug.answers["/rpc/Switch.GetStatus"] = (200, '{"id":0,"output":"yes"}', {})
        with pytest.raises(ConfigurationError, match=r"neither true nor false"):
            await queue.get("0")
        plug.answers["/rpc/Switch.GetStatus"] = (200, '{"id":0,"output":null}', {})
        assert await queue.get("0") is Power.UNKNOWN
        plug.answers["/rpc/Switch.GetStatus"] = (200, '{"id":1,"error":{"code":-105,"message":"Bad id=0"}}', {})
        with pytest.raises(ConfigurationError, match=r"Bad id=0"):
            await queue.get("0")
        for body in ("<html>Login</html>", "[" * 100_000, "[]", ""):
            plug.answers["/rpc/Switch.GetStatus"] = (200, body, {"Content-Type": "text/html"})
            with pytest.raises(ConfigurationError, match=r"plug:0: .*JSON"):
                await queue.get("0")
        plug.answers["/rpc/Switch.GetStatus"] = (404, "Not Found", {})
        with pytest.raises(ConfigurationError, match=r"first generation"):
            await queue.get("0")
        plug.answers["/rpc/Switch.GetStatus"] = (503, "busy", {})
        with pytest.raises(UnreachableError, match=r"HTTP 503"):
            await queue.get("0")
        plug.answers["/rpc/Switch.GetStatus"] = (500, '{"code":-104,"message":"deadline"}', {})
        with pytest.raises(UnreachableError, match=r"deadline"):
            await queue.get("0")


async def test_a_redirect_is_not_followed(connect):
    async with PlugServer() as plug, PlugServer() as elsewhere:
        queue = connect(plug.url)
        plug.answers["/rpc/Switch.Set"] = (307, "", {"Location": f"{elsewhere.url}/rpc/Switch.Set?key=s3cret"})
        with pytest.raises(ConfigurationError, match=r"sends us on to http://127") as caught:
            await queue.set("0", True)
        assert elsewhere.requests == []
        assert "s3cret" not in str(caught.value)


async def test_digest_sha256_and_a_wrong_password(connect, password):
    gate = LoginGate("sha-256", {"admin": "s3cret"})
    async with PlugServer(gate=gate) as plug:
        queue = connect(plug.url, **password)
        await queue.set("0", True)
        assert plug.sets == [("1", True)], "what the challenge answered did not switch"
        gate.forget_nonces()
        assert await queue.get("0") is Power.ON
        password["password_file"].write_text("wrong")
        refused = gate.refused
        with pytest.raises(AuthenticationError, match=r"plug:0: .*refuses admin.*correct the account") as caught:
            await queue.set("0", False)
        assert "wrong" not in str(caught.value)
        assert gate.refused - refused == 1, "an account that may be locked is tried once"
        password["password_file"].write_text("s3cret")
        assert await queue.get("0") is Power.ON, "a password mended on disk is taken"
        password["password_file"].write_text(" \n")
        with pytest.raises(ConfigurationError, match=r"empty"):
            await queue.get("0")
        password["password_file"].unlink()
        with pytest.raises(ConfigurationError, match=r"cannot be read"):
            await queue.get("0")
        with pytest.raises(AuthenticationError, match=r"wants to know who asks"):
            await connect(plug.url).get("0")
        assert "s3cret" not in repr(Login("digest", "admin", "s3cret"))


async def test_a_device_that_hangs_is_unreachable_in_time_and_the_next_call_works(connect):
    async with PlugServer() as plug:
        queue = connect(plug.url, timeout_s=1.0)
        plug.deaf = True
        with pytest.raises(UnreachableError, match=r"plug:0: .*did not answer within 1 s"):
            await queue.set("0", True)
        plug.deaf = False
        assert await queue.get("0") is Power.OFF
        plug.deaf = True
        call = asyncio.create_task(queue.driver.get("0"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        plug.deaf = False
        assert await queue.get("0") is Power.OFF


async def test_nobody_there(connect):
    async with PlugServer() as plug:
        url = plug.url
    with pytest.raises(UnreachableError, match=r"plug:0: http://127.*cannot be reached"):
        await connect(url).get("0")
    with pytest.raises(UnreachableError, match=r"cannot be reached"):
        await connect("http://no-such-host.invalid").get("0")


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"SSH-2.0-dropbear\r\n", ConfigurationError, "something else than HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x0a", ConfigurationError, "something else than HTTP"),
        (b"", UnreachableError, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", UnreachableError, "cannot be reached"),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * (MAX_REPLY_BYTES + 65536),
            ConfigurationError,
            "more than",
        ),
    ],
)
async def test_what_is_no_http(connect, listener, answer, error, text):
    with pytest.raises(error, match=text):
        await connect(await listener(answer)).get("0")


async def test_tls_is_checked(connect, certificates):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates.server_cert, certificates.server_key)
    async with PlugServer(tls=tls) as plug:
        assert await connect(plug.url, ca_file=certificates.ca).get("0") is Power.OFF
        assert await connect(plug.url, verify_tls=False).get("0") is Power.OFF
        with pytest.raises(ConfigurationError, match=r"no TLS: certificate not accepted"):
            await connect(plug.url).get("0")
        with pytest.raises(ConfigurationError, match=r"ca_file"):
            await connect(plug.url, ca_file=certificates.ca.with_name("none.crt")).get("0")
        with pytest.raises((UnreachableError, ConfigurationError)):
            await connect(plug.url.replace("https", "http")).get("0")
    async with PlugServer() as plug:
        with pytest.raises(ConfigurationError, match=r"no TLS"):
            await connect(plug.url.replace("http", "https")).get("0")


async def test_a_lying_plug_through_the_service():
    store = MemoryStore()
    async with PlugServer(outlets=2, lying={"2"}) as plug:
        service = PowerService(
            {"strip": ShellySettings(driver="shelly", url=plug.url)},
            {"b1": BoardFeed(outlets=["strip:0"]), "b2": BoardFeed(outlets=["strip:1"], verify_deadline_s=0.3)},
            journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0,
        )  # fmt: skip
        await service.start()
        good = await service.switch("b1", PowerAction.ON, operation_id="1")
        lied = await service.switch("b2", PowerAction.ON, operation_id="2")
        await service.close()
    await store.close()
    assert (good.ok, good.power) == (True, Power.ON)
    assert (lied.error.kind, lied.power) == (ErrorKind.NOT_VERIFIED, Power.OFF)


async def test_one_session_per_agent():
    context = DriverContext()
    for name in ("a", "b"):
        KIND.driver(name, ShellySettings(driver="shelly", url="http://127.0.0.1:9"), context)
    assert list(context._shared) == [SharedSession]
    await context.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"url": "ftp://x"}, "is not http"),
        ({"url": "http://admin:s3cret@x"}, "credentials do not belong"),
        ({"url": "http://x/?a=b"}, "only the address"),
        ({"url": "http://x:99999"}, "not a URL"),
        ({"username": "admin"}, "username needs"),
        ({"password_env": "X"}, "username needs"),
        ({"username": "admin", "password_env": "X", "password_file": "/x"}, "exactly one"),
        ({"username": "a:b", "password_env": "X"}, "no colon"),
        ({"verify_tls": False, "ca_file": "/x"}, "of no use"),
        ({"timeout": 3}, "Extra inputs"),
    ],
)
def test_settings_are_strict(changes, text):
    with pytest.raises(ValidationError, match=text):
        ShellySettings.model_validate({"driver": "shelly", "url": "http://10.0.0.2", **changes})
