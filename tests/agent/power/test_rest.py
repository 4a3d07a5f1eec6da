"""The REST driver against a virtual service on loopback."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.drivers.rest import at_pointer
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.rest import KIND, RestSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from wire.phases import Power


def labgrid(url):
    """labgrid's `rest` shape: 0 and 1 as text."""
    return {
        "on": {"url": f"{url}/power/{{outlet}}", "method": "PUT", "body": "1"},
        "off": {"url": f"{url}/power/{{outlet}}", "method": "PUT", "body": "0"},
        "state": {"url": f"{url}/power/{{outlet}}"},
    }


def whole(url):
    """One answer for all outlets."""
    return {
        **labgrid(url),
        "state": {"url": f"{url}/power/all", "pointer": "/outlets/{outlet}/on"},
        "watts": {"pointer": "/outlets/{outlet}/mw", "scale": 0.001},
    }


@pytest.fixture
async def connect():
    context, queues = DriverContext(), []

    def make(table, **changes):
        settings = RestSettings.model_validate({"driver": "rest", "timeout_s": 10.0, **table, **changes})
        queue = ControllerQueue("rest", KIND.driver("rest", settings, context))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()
    await context.close()


async def test_zeros_and_ones(connect):
    async with PlugServer(outlets=2) as plug:
        queue = connect(labgrid(plug.url), outlets=["1", "2"])
        await queue.set("2", True)
        assert plug.edges == [("2", True)]
        assert await queue.get_many(["1", "2"]) == {"1": Power.OFF, "2": Power.ON}
        assert await queue.read("2") is None
        assert [d.outlet for d in await queue.describe()] == ["1", "2"]
        assert await queue.identify() is None
        with pytest.raises(ConfigurationError, match=r"rest:3: has no such outlet; it has 1, 2"):
            await queue.set("3", True)


async def test_one_answer_tells_all(connect):
    async with PlugServer(outlets=3) as plug:
        queue = connect(whole(plug.url), outlets=["1", "2", "9"])
        plug.press("2", on=True)
        found = await queue.get_many(["1", "2", "9", "x"])
        assert (found["1"], found["2"]) == (Power.OFF, Power.ON)
        assert isinstance(found["9"], ConfigurationError) and "no '9' in an object" in str(found["9"])
        assert isinstance(found["x"], ConfigurationError)
        assert plug.requests == [("GET", "/power/all")]
        assert await queue.read_many(["1", "2"]) == {"1": 0.0, "2": 12.5}
        assert await queue.read("2") == 12.5
        assert [d.power for d in await queue.describe()] == [Power.OFF, Power.ON, Power.UNKNOWN]
        assert await queue.get("2") is Power.ON


async def test_without_state_nothing_is_claimed(connect):
    async with PlugServer(outlets=1) as plug:
        table = {
            "on": {"url": f"{plug.url}/rpc/Switch.Set?id=0&on=true"},
            "off": {"url": f"{plug.url}/rpc/Switch.Set?id=0&on=false"},
        }
        queue = connect(table)
        await queue.set("1", True)
        assert plug.on["1"] is True
        assert not queue.driver.reads_back
        assert await queue.get("1") is Power.UNKNOWN
        with pytest.raises(ConfigurationError, match=r"it has 1;"):
            await queue.set("2", True)


async def test_values_are_what_the_settings_say(connect):
    async with PlugServer(outlets=1) as plug:
        url = f"{plug.url}/power/1"
        state = {"url": url, "pointer": "/state", "on_values": ["running", 2], "off_values": ["stopped"]}
        queue = connect({**labgrid(plug.url), "state": {**state, "unknown_values": ["busy"]}})
        for value, power in (
            ('"running"', Power.ON),
            ("2.0", Power.ON),
            ('"stopped"', Power.OFF),
            ('"busy"', Power.UNKNOWN),
            ("null", Power.UNKNOWN),
        ):
            plug.answers["/power/1"] = (200, f'{{"state": {value}}}', {})
            assert await queue.get("1") is power
        for value in ('"Running"', "true", "[]", '"2"', "{}"):
            plug.answers["/power/1"] = (200, f'{{"state": {value}}}', {})
            with pytest.raises(ConfigurationError, match=r"rest:1: .*none of on_values"):
                await queue.get("1")
        for body, text in (('{"stat": 1}', "nothing at /state"), ("<html>", "JSON was expected"), ("3", "in 3")):
            plug.answers["/power/1"] = (200, body, {})
            with pytest.raises(ConfigurationError, match=text):
                await queue.get("1")


async def test_watts_of_the_wrong_type(connect):
    async with PlugServer(outlets=1) as plug:
        queue = connect(whole(plug.url))
        for value in ("true", '"much"', "[1]", "NaN", '"inf"'):
            plug.answers["/power/all"] = (200, f'{{"outlets": {{"1": {{"on": true, "mw": {value}}}}}}}', {})
            with pytest.raises(ConfigurationError, match=r"where watts are expected"):
                await queue.read("1")
        plug.answers["/power/all"] = (200, '{"outlets": {"1": {"on": true, "mw": "2500"}}}', {})
        assert await queue.read("1") == 2.5
        plug.answers["/power/all"] = (200, '{"outlets": {"1": {"on": true, "mw": null}}}', {})
        assert await queue.read("1") is None


@pytest.mark.parametrize("scheme", ["basic", "md5", "sha-256"])
async def test_accounts(connect, monkeypatch, scheme):
    monkeypatch.setenv("REST_PASSWORD", "s3cret")
    async with PlugServer(gate=LoginGate(scheme, {"lab": "s3cret"})) as plug:
        auth = "basic" if scheme == "basic" else "digest"
        queue = connect(labgrid(plug.url), auth=auth, username="lab", password_env="REST_PASSWORD")
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        monkeypatch.setenv("REST_PASSWORD", "wrong")
        with pytest.raises(AuthenticationError, match=r"rest:1: .*refuses lab") as caught:
            await queue.get("1")
        assert "wrong" not in str(caught.value)


async def test_tokens_and_secret_headers_reach_the_service_and_no_error(connect, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    monkeypatch.setenv("API_KEY", "k3y")
    seen = []
    async with PlugServer(outlets=1) as plug:
        user = plug.gate.user
        plug.gate.user = lambda authorization, *more: seen.append(authorization) or user(authorization, *more)
        queue = connect(
            labgrid(plug.url),
            auth="bearer",
            token_file=token,
            headers={"X-Lab": "one"},
            secret_headers={"X-Api-Key": {"env": "API_KEY"}},
        )
        assert await queue.get("1") is Power.OFF
        assert seen == ["Bearer t0ken"]
        plug.answers["/power/1"] = (401, "", {})
        with pytest.raises(AuthenticationError, match=r"refuses the token") as caught:
            await queue.get("1")
        assert "t0ken" not in str(caught.value)
        token.write_text("t0k\nen")
        with pytest.raises(ConfigurationError, match=r"cannot be asked") as caught:
            await queue.get("1")
        assert "t0k" not in str(caught.value)


async def test_a_url_is_sent_as_it_stands(connect):
    async with PlugServer() as plug:
        table = {
            "on": {"url": f"{plug.url}/cm?cmnd=Power{{outlet}}%20On"},
            "off": {"url": f"{plug.url}/c%2Fm/{{outlet}};a=b,c"},
        }
        queue = connect(table)
        for on in (True, False):
            with pytest.raises(ConfigurationError, match=r"HTTP 404"):
                await queue.set("1", on)
        assert plug.urls == ["/cm?cmnd=Power1%20On", "/c%2Fm/1;a=b,c"]


async def test_errors_are_typed(connect):
    async with PlugServer(outlets=2, refusing={"2"}) as plug:
        queue = connect(labgrid(plug.url))
        with pytest.raises(RefusedError, match=r"rest:2: .*HTTP 409"):
            await queue.set("2", True)
        with pytest.raises(ConfigurationError, match=r"rest:7: .*HTTP 404.*no such outlet"):
            await queue.get("7")
        with pytest.raises(ConfigurationError, match=r"letters, digits"):
            await queue.set("1/../2", True)
        plug.answers["/power/1"] = (429, "slow down", {})
        with pytest.raises(UnreachableError, match=r"429"):
            await queue.set("1", True)
    with pytest.raises(UnreachableError):
        await queue.get("1")


GOOD = labgrid("http://h")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"on": {"url": "http://h/on"}}, "only one of on and off"),
        ({"on": {"url": "http://h/{outlet}/{x}"}}, "only {outlet} may"),
        ({"on": {"url": "http://h/{outlet}/turn on"}}, "write %20"),
        ({"on": {"url": "http://u:p@h/{outlet}"}}, "credentials do not belong"),
        ({"on": {"url": "http://h/{outlet}", "headers": {"Authorization": "Basic x"}}}, "is a secret"),
        ({"on": {"url": "http://h/{outlet}", "headers": {"X-A": "a\r\nB: c"}}}, "control characters"),
        ({"headers": {"X A": "a"}}, "no name of a header"),
        ({"state": {"url": "http://h", "pointer": "state"}}, "no JSON pointer"),
        ({"state": {"url": "http://h", "on_values": [1], "off_values": [1.0]}}, "means on and off"),
        ({"state": None, "watts": {"pointer": "/w"}}, "watts needs url"),
        ({"auth": "basic"}, "needs username"),
        ({"auth": "bearer"}, "needs token"),
        ({"token_env": "T"}, "takes no token"),
        ({"username": "x", "password_env": "Y"}, "takes no username"),
        ({"secret_headers": {"X-Key": {"env": "A", "file": "/b"}}}, "exactly one of file and env"),
        ({"outlets": ["a b"]}, "letters, digits"),
        ({"watts": {"pointer": "/w", "scale": 0}}, "greater than 0"),
    ],
)
def test_settings_are_strict(changes, text):
    assert RestSettings.model_validate({"driver": "rest", **GOOD})
    with pytest.raises(ValidationError, match=text):
        RestSettings.model_validate({"driver": "rest", **GOOD, **changes})


DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/m~0n", 8),
    ],
)
def test_pointers_of_rfc_6901_section_5(pointer, value):
    assert at_pointer(DOCUMENT, pointer) == value


@pytest.mark.parametrize("pointer", ["/foo/2", "/foo/-", "/foo/00", "/foo/01", "/none", "/foo/0/x", "/foo/²"])
def test_pointers_to_nothing(pointer):
    with pytest.raises(LookupError):
        at_pointer(DOCUMENT, pointer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def paths(value, at=""):
    yield at, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from paths(child, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


@given(JSON)
def test_every_value_has_a_pointer(document):
    for pointer, value in paths(document):
        assert at_pointer(document, pointer) == value
