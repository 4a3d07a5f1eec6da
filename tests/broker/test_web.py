"""The HTTP API over a real MQTT server, with a farm that speaks the contract behind it."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from broker.web.service import Web
from broker.web.settings import WebTable
from daemon.foreground import DaemonError
from daemon.mqtt_settings import MqttSettings
from tests.broker.live import PATIENCE_S, LiveFarm, Server
from wire.payloads import Alert, Event, Lease, encode
from wire.phases import EventType, Phase

ROLES = ("reader", "user", "operator", "admin")


def token_for(tokens, name, role):
    made = subprocess.run(
        [sys.executable, "-m", "cli", "token", "add", name, "--role", role, "--file", str(tokens), "--json"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(made.stdout)["token"]


class Api:
    """A client with one person's token."""

    def __init__(self, session, base):
        self.session, self.base = session, base

    async def call(self, method, path, token=None, **more):
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        async with self.session.request(method, f"{self.base}{path}", headers=headers, **more) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json and text else text, answer

    async def until(self, path, token, wanted):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                status, found, _ = await self.call("GET", path, token)
                if status == 200 and wanted(found):
                    return found
                await asyncio.sleep(0.05)

    async def until_status(self, path, token, wanted):
        async with asyncio.timeout(PATIENCE_S):
            status = None
            while status != wanted:
                await asyncio.sleep(0.05)
                status, _, _ = await self.call("GET", path, token)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    made = {role: token_for(file, role if role != "user" else "alice", role) for role in ROLES}
    return file, made


@asynccontextmanager
async def serving(folder, file, *, names=("b1", "b2"), **table):
    server = Server(folder)
    await server.start()
    mqtt = MqttSettings(url=f"mqtt://127.0.0.1:{server.port}")
    web = Web(WebTable(port=0, tokens=file, **table), mqtt, folder)
    try:
        async with LiveFarm(server.port, names) as farm:
            await web.start()
            try:
                async with aiohttp.ClientSession() as session:
                    yield farm, Api(session, f"http://127.0.0.1:{web.port}")
            finally:
                await web.stop()
    finally:
        server.stop()


async def lease(farm, board, holder, token=7):
    expires = datetime.now(UTC) + timedelta(minutes=5)
    await farm.say(farm.topics.lease(board), encode(Lease(holder=holder, token=token, expires=expires)), retain=True)


async def test_who_may_do_what(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        await api.until("/api/v1/boards", known["reader"], lambda boards: len(boards) == 2)
        status, found, _ = await api.call("GET", "/api/v1/boards")
        assert (status, found["error"]["kind"]) == (401, "not-allowed")
        status, found, _ = await api.call("GET", "/api/v1/boards", "bh_guess")
        assert status == 401
        power = "/api/v1/boards/b1/power"
        status, found, _ = await api.call("POST", power, known["reader"], json={"power": "on"})
        assert (status, found["error"]["message"]) == (403, "reader is reader; this is for users")
        status, found, _ = await api.call("POST", power, known["user"], json={"power": "on"})
        assert status == 409
        assert "reserve it first" in found["error"]["message"]
        await lease(farm, "b1", "bob")
        await api.until(
            "/api/v1/boards/b1", known["reader"], lambda board: (board["lease"] or {}).get("holder") == "bob"
        )
        for role in ("user", "operator"):
            status, found, _ = await api.call("POST", power, known[role], json={"power": "on"})
            assert status == 409
            assert "held by bob" in found["error"]["message"]
        status, found, _ = await api.call("POST", power, known["operator"], json={"power": "on", "force": True})
        assert (status, found["error"]["message"]) == (403, "operator is operator; only an admin may force")
        assert farm.boards["b1"].boots == 0, "nothing of that has switched it"
        status, found, _ = await api.call("POST", power, known["admin"], json={"power": "on", "force": True})
        assert (status, found["ok"]) == (200, True)
        assert b'"force":true' in farm.payloads("boardhand/board/b1/power/set")[-1]
        await lease(farm, "b2", "alice", token=11)
        await api.until(
            "/api/v1/boards/b2", known["reader"], lambda board: (board["lease"] or {}).get("holder") == "alice"
        )
        status, found, _ = await api.call("POST", "/api/v1/boards/b2/power", known["user"], json={"power": "on"})
        assert (status, found["power"]) == (200, "on")
        assert b'"token":11' in farm.payloads("boardhand/board/b2/power/set")[-1]
        _, text, _ = await api.call("GET", "/api/v1/boards", known["admin"])
        assert '"token"' not in json.dumps(text), "whoever has a lease's token may switch the board"


async def test_a_browser_logs_in_and_other_sites_cannot_use_its_cookie(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (_, api):
        status, found, _ = await api.call("POST", "/api/v1/login", json={"token": "bh_guess"})
        assert status == 401
        status, found, answer = await api.call("POST", "/api/v1/login", json={"token": known["operator"]})
        assert (status, found) == (200, {"name": "operator", "role": "operator"})
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        jar = {"Cookie": cookie.partition(";")[0]}
        assert known["operator"] not in cookie
        await api.until("/api/v1/boards", known["reader"], lambda boards: len(boards) == 2)
        status, found, _ = await api.call("GET", "/api/v1/farm", headers=jar)
        assert (status, found["you"]) == (200, "operator")
        status, found, _ = await api.call("POST", "/api/v1/boards/b1/power", headers=jar, json={"power": "on"})
        assert (status, found["error"]["kind"]) == (403, "not-allowed")
        own = {**jar, "X-Boardhand": "1"}
        status, found, _ = await api.call("POST", "/api/v1/boards/b1/power", headers=own, json={"power": "on"})
        assert status == 200
        status, _, _ = await api.call("POST", "/api/v1/logout", headers=own)
        assert status == 204
        status, _, _ = await api.call("GET", "/api/v1/farm", headers=jar)
        assert status == 401


async def test_a_token_that_is_taken_away_is_good_for_nothing(tmp_path):
    file = tmp_path / "tokens.toml"
    token = token_for(file, "eve", "reader")
    async with serving(tmp_path, file) as (_, api):
        _, _, answer = await api.call("POST", "/api/v1/login", json={"token": token})
        jar = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        assert (await api.call("GET", "/api/v1/farm", headers=jar))[0] == 200
        remove = [sys.executable, "-m", "cli", "token", "remove", "eve", "--file", str(file)]
        subprocess.run(remove, check=True, timeout=60, capture_output=True)
        await api.until_status("/api/v1/farm", token, 401)
        assert (await api.call("GET", "/api/v1/farm", headers=jar))[0] == 401, "its session ended, too"
        other = token_for(file, "mallory", "reader")
        await api.until_status("/api/v1/farm", other, 200)
        good = file.read_text()
        file.write_text("no toml")
        await api.until_status("/api/v1/farm", other, 401)
        file.write_text(good)
        await api.until_status("/api/v1/farm", other, 200)


async def test_changes_come_live_and_stay_in_the_timeline(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        await api.until("/api/v1/boards", known["reader"], lambda boards: len(boards) == 2)
        head = {"Authorization": f"Bearer {known['reader']}"}
        async with api.session.get(f"{api.base}/api/v1/live", headers=head) as live, asyncio.timeout(PATIENCE_S):
            assert live.content_type == "text/event-stream"
            assert (await live.content.readline()).decode() == "event: reload\n"
            await farm.say_state(farm.boards["b1"], Phase.FAULT, "the fuse")
            events = [
                Event(
                    type=EventType.PHASE, at=datetime.now(UTC), board="b1", agent="lab1", session=1, seq=n, details={}
                )
                for n in (1, 2, 3)
            ]
            for event in (*events, events[0]):
                await farm.say(farm.topics.event("b1"), encode(event))
            kinds, lines = [], []
            while kinds.count("event") < 4:
                line = (await live.content.readline()).decode().strip()
                lines.append(line)
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
            assert "board" in kinds
            assert any('"reason":"the fuse"' in line for line in lines)
        found = await api.until(
            "/api/v1/boards/b1/timeline?limit=2", known["reader"], lambda found: len(found["events"]) == 2
        )
        assert [event["seq"] for event in found["events"]] == [3, 2]
        assert found["more"] is True
        _, found, _ = await api.call("GET", "/api/v1/boards/b1/timeline?before=2", known["reader"])
        assert [event["seq"] for event in found["events"]] == [1]
    async with serving(tmp_path, file) as (_, api):
        await api.until("/api/v1/boards", known["reader"], lambda boards: len(boards) == 2)
        _, found, _ = await api.call("GET", "/api/v1/boards/b1/timeline", known["reader"])
        assert [event["seq"] for event in found["events"]] == [3, 2, 1], "it is kept over a restart"


async def test_an_agent_that_is_away_leaves_power_unknown_and_nothing_is_switched(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        await farm.say_state(farm.boards["b1"], Phase.READY)
        alert = Alert(what="the fuse", since=datetime.now(UTC), do="mend it")
        await farm.say(farm.topics.alert("b1", "power"), encode(alert), retain=True)
        wanted = lambda board: board["power"] == "on" and "power" in board["alerts"]
        await api.until("/api/v1/boards/b1", known["reader"], wanted)
        gone = json.dumps({"state": "lost", "session": 1, "since": datetime.now(UTC).isoformat()})
        await farm.say(farm.topics.agent_state("lab1"), gone.encode(), retain=True)
        board = await api.until("/api/v1/boards/b1", known["reader"], lambda board: not board["agent_online"])
        assert board["power"] == "unknown"
        status, found, _ = await api.call("POST", "/api/v1/boards/b1/power", known["operator"], json={"power": "off"})
        assert (status, found["error"]["kind"]) == (503, "unreachable")
        status, found, _ = await api.call("GET", "/api/v1/boards/nemo", known["reader"])
        assert (status, found["error"]["kind"]) == (404, "unknown-board")


async def test_metrics_are_read_by_a_prometheus_client(tmp_path, tokens):
    from prometheus_client.parser import text_string_to_metric_families

    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        await farm.say_state(farm.boards["b1"], Phase.READY)
        await api.until("/api/v1/boards/b1", known["reader"], lambda board: board["phase"] == "ready")
        assert (await api.call("GET", "/metrics"))[0] == 401
        _, text, _ = await api.call("GET", "/metrics", known["reader"])
        families = {family.name: family for family in text_string_to_metric_families(text)}
        phases = {sample.labels["phase"]: sample.value for sample in families["boardhand_boards"].samples}
        assert (phases["ready"], phases["sleeping"], phases["fault"]) == (1, 1, 0)
        agents = {sample.labels["agent"]: sample.value for sample in families["boardhand_agent_online"].samples}
        assert agents == {"lab1": 1}


async def test_bad_input_is_told_and_the_document_describes_it(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file, anonymous=True) as (_, api):
        await api.until("/api/v1/boards", None, lambda boards: len(boards) == 2)
        path = "/api/v1/boards/b1/power"
        assert (await api.call("POST", path, json={"power": "on"}))[0] == 401, "who is nobody may only look"
        for body, key in (({"power": "up"}, "power"), ({"power": "on", "forse": True}, "forse"), ([], "")):
            status, found, _ = await api.call("POST", path, known["operator"], json=body)
            assert (status, found["error"]["kind"], found["error"].get("key") or "") == (400, "bad-request", key)
        status, document, _ = await api.call("GET", "/api/openapi.json")
        assert status == 200
        paths = document["paths"]
        assert {"/api/v1/boards", "/api/v1/jobs", "/api/v1/leases", "/api/v1/live", "/api/v1/energy"} <= paths.keys()
        assert "BoardView" in document["components"]["schemas"]
        status, page, answer = await api.call("GET", "/")
        assert (status, answer.headers["Content-Security-Policy"].split(";")[0]) == (200, "default-src 'self'")
        assert "boardhand" in page


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"address": "0.0.0.0"}, "tokens would travel in the clear"),
        ({"address": "farm.example.org"}, "is no address"),
        ({"certificate": "/etc/hostname"}, "certificate and key go together"),
    ],
)
def test_what_would_leak_tokens_is_refused(table, words):
    with pytest.raises(ValueError, match=words):
        WebTable(**table)


async def test_without_tokens_it_says_how_to_make_one(tmp_path):
    web = Web(WebTable(port=0, tokens=tmp_path / "none.toml"), MqttSettings(), tmp_path)
    with pytest.raises(DaemonError, match="make one with 'boardhand token add'"):
        await web.start()
