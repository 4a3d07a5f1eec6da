import asyncio
import json

import aiohttp
import pytest

from agent.pdu_listener.connections import ConnectionGate
from agent.pdu_listener.desk import Answer
from agent.pdu_listener.http_server import STATUS, HttpServer
from agent.pdu_listener.settings import Endpoint
from wire.phases import ErrorKind, Power, PowerAction

TOKEN = "correct-horse-battery"
PI = "hostname=pdu-a&port=3"


def basic(token):
    return {"Authorization": aiohttp.encode_basic_auth("me", token)}


async def end_of(reader):
    """The connection is ended, by a reset or in order."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("query", "call"),
    [
        (f"on?{PI}", ("pi", PowerAction.ON, None)),
        (f"off?{PI}", ("pi", PowerAction.OFF, None)),
        (f"reboot?{PI}", ("pi", PowerAction.CYCLE, 5.0)),
        (f"reboot?{PI}&delay=2", ("pi", PowerAction.CYCLE, 2.0)),
        (f"reboot?{PI}&delay=0", ("pi", PowerAction.CYCLE, 0.0)),
        (f"on?{PI}&delay=0.01&unknown=1", ("pi", PowerAction.ON, None)),
        ("off?alias=DUT.1", ("pi", PowerAction.OFF, None)),
        ("on?hostname=pdu-a&port=9", ("pdu-a:9", PowerAction.ON, None)),
        ("reboot?alias=fan&delay=3", ("pdu-a:7", PowerAction.CYCLE, 3.0)),
    ],
)
async def test_pdudaemons_queries_switch(listen, http, query, call):
    listener, desk = await listen()
    assert await http(listener, f"/power/control/{query}") == (200, "OK - accepted request\n")
    assert desk.calls == [call]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/power/control/reboot?{PI}&delay=abc", 400),
        (f"/power/control/on?{PI}&port=4", 400),
        ("/power/control/on?hostname=pdu-a", 400),
        ("/power/control/on?hostname=nobody&port=1", 404),
        ("/power/control/on?alias=nobody", 404),
        (f"/power/control/explode?{PI}", 404),
        ("/power/control/on/more?alias=pi", 404),
        ("/power/state?hostname=nobody&port=1", 404),
        ("/power/outlet/nobody/1", 404),
        ("/power/outlet/pdu-a", 404),
        ("/power/outlet/pdu-a/%20", 400),
        ("/", 404),
    ],
)
async def test_a_bad_request_is_refused_before_anything_is_switched(listen, http, path, status):
    listener, desk = await listen()
    got, text = await http(listener, path)
    assert (got, desk.calls) == (status, [])
    assert text.startswith("Invalid request: ")
    assert text.count("\n") == 1


async def test_only_get_switches(listen, http):
    listener, desk = await listen()
    for path in (f"/power/control/on?{PI}", f"/power/state?{PI}", "/power/outlet/pdu-a/3"):
        assert (await http(listener, path, "POST"))[0] == 405
    assert (await http(listener, f"/power/control/on?{PI}", "HEAD"))[0] == 405
    assert desk.calls == []


@pytest.mark.parametrize("kind", ErrorKind)
async def test_a_failure_is_a_failure(listen, http, kind):
    listener, desk = await listen()
    desk.errors["pi"] = kind
    status, text = await http(listener, f"/power/control/off?{PI}")
    assert status == STATUS[kind] >= 400
    assert text.endswith("pi: is broken; mend it\n")
    assert text.count("\n") == 1
    status, text = await http(listener, f"/power/control/off?{PI}", headers={"Accept": "application/json"})
    assert (status, json.loads(text)["ok"], json.loads(text)["error"]["kind"]) == (STATUS[kind], False, kind)


async def test_the_state_is_what_was_read(listen, http):
    listener, desk = await listen()
    assert await http(listener, f"/power/state?{PI}") == (200, "off\n")
    desk.power["pi"] = Power.ON
    assert await http(listener, "/power/state?alias=pi") == (200, "on\n")
    as_json = {"headers": {"Accept": "application/json"}}
    assert await http(listener, "/power/state?alias=pi", **as_json) == (200, '{"power": "on", "error": null}')
    desk.errors["pi"] = ErrorKind.UNREACHABLE
    assert await http(listener, f"/power/state?{PI}") == (200, "unknown\n")
    said = json.loads((await http(listener, f"/power/state?{PI}", **as_json))[1])
    assert said == {"power": "unknown", "error": {"kind": "unreachable", "message": "pi: is\nbroken; mend it"}}


async def test_labgrids_rest_shape(listen, http):
    listener, desk = await listen()
    assert await http(listener, "/power/outlet/pdu-a/3") == (200, "0")
    assert await http(listener, "/power/outlet/pdu-a/3", "PUT", data=b"1") == (200, "")
    assert await http(listener, "/power/outlet/PDU05.lab.example/3") == (200, "1")
    assert await http(listener, "/power/alias/DUT.1", "PUT", data=b"0\n") == (200, "")
    assert await http(listener, "/power/alias/pi") == (200, "0")
    assert desk.calls == [("pi", PowerAction.ON, None), ("pi", PowerAction.OFF, None)]


async def test_labgrids_rest_shape_never_guesses(listen, http):
    listener, desk = await listen()
    desk.power["pi"] = Power.UNKNOWN
    assert (await http(listener, "/power/alias/pi"))[0] == 503
    desk.errors["pi"] = ErrorKind.AUTHENTICATION
    status, text = await http(listener, "/power/alias/pi")
    assert (status, text) == (503, "Failed: pi: is broken; mend it\n")
    assert (await http(listener, "/power/alias/pi", "PUT", data=b"1"))[0] == 502


@pytest.mark.parametrize("body", [b"", b"2", b"on", b"10", b"1" * 100_000, b"\xff"])
async def test_a_body_that_is_neither_0_nor_1_is_refused(listen, http, body):
    listener, desk = await listen()
    try:
        status, text = await http(listener, "/power/alias/pi", "PUT", data=body)
    except aiohttp.ClientOSError:
        assert len(body) > 1000, "only an overlong body may be cut off"
    else:
        assert (status, text.startswith("Invalid request: the body")) == (400, True)
    assert desk.calls == []
    assert (await http(listener, "/power/alias/pi"))[0] == 200


async def test_a_token_when_told(listen, http, tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    listener, desk = await listen(token_file=file)
    path = f"/power/control/on?{PI}"
    assert (await http(listener, path))[0] == 401
    assert (await http(listener, path, headers={"Authorization": "Basic !"}))[0] == 401
    assert (await http(listener, path, headers={"Authorization": "Bearer wrong"}))[0] == 403
    assert (await http(listener, path, headers=basic("wrong")))[0] == 403
    assert (await http(listener, "/power/alias/pi", "PUT", data=b"1"))[0] == 401
    assert desk.calls == []
    assert (await http(listener, path, headers={"Authorization": f"Bearer {TOKEN}"}))[0] == 200
    assert (await http(listener, "/power/alias/pi", headers=basic(TOKEN)))[0] == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_web_page_may_not_switch(listen, http, headers):
    listener, desk = await listen()
    assert (await http(listener, f"/power/control/off?{PI}", headers=headers))[0] == 403
    assert desk.calls == []


async def raw(endpoint, data):
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(data)
    return reader, writer


async def test_connections_that_say_nothing_are_ended_and_those_that_wait_are_not():
    gate = ConnectionGate(idle_s=0.2)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def carry_out(_asked, _who):
        asked.set()
        await answer.wait()
        return Answer(Power.ON)

    server = HttpServer(carry_out, None, gate)
    endpoint = await server.start(Endpoint("127.0.0.1", 0))
    try:
        waiting, waiting_out = await raw(endpoint, b"GET /power/state?alias=a HTTP/1.1\r\nHost: x\r\n\r\n")
        await asked.wait()
        slow, slow_out = await raw(endpoint, b"GET /power/state?alias=a HTTP/1.1\r\nHo")
        silent, silent_out = await raw(endpoint, b"")
        async with asyncio.timeout(60):
            assert await end_of(slow)
            assert await end_of(silent)
            assert len(gate.open) == 1
            answer.set()
            assert (await waiting.readuntil(b"on\n")).startswith(b"HTTP/1.1 200")
            # After its answer it is silent too, and goes the same way.
            while gate.open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for writer in (waiting_out, slow_out, silent_out):
            writer.close()
    finally:
        await server.stop()


async def test_too_many_connections_are_turned_away(until):
    gate = ConnectionGate(most=3, idle_s=30)
    server = HttpServer(None, None, gate)
    endpoint = await server.start(Endpoint("127.0.0.1", 0))
    writers = []
    try:
        writers += [(await raw(endpoint, b""))[1] for _ in range(3)]
        await until(lambda: len(gate.open) == 3)
        reader, writer = await raw(endpoint, b"")
        writers.append(writer)
        async with asyncio.timeout(60):
            assert await end_of(reader)
        assert len(gate.open) == 3
    finally:
        for writer in writers:
            writer.close()
        await server.stop()
    await until(lambda: not gate.open)


async def test_junk_ends_its_connection_only(listen, http):
    listener, desk = await listen()
    reader, writer = await raw(listener.http, b"\x16\x03\x01" + bytes(range(256)) * 40 + b"\r\n\r\n")
    async with asyncio.timeout(60):
        try:
            answer = await reader.read()
        except ConnectionError:
            answer = b""
    writer.close()
    assert answer == b"" or b" 400 " in answer.splitlines()[0]
    assert (await http(listener, "/power/alias/pi"))[0] == 200
    assert desk.calls == []
