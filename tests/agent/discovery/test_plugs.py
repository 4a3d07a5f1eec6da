"""Plugs that announce themselves: by rule alone, and at a real Mosquitto; Shelly devices by HTTP."""

import asyncio
import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discovery.plugs_by_mqtt import FILTERS, Announcements, listen
from agent.discovery.shellies import ShellyFinder
from agent.power.kinds.shelly import ShellySettings
from agent.power.kinds.tasmota import TasmotaSettings
from daemon.mqtt_settings import MqttSettings
from virtual_lab.plug_server import PlugServer
from virtual_lab.tasmota_plug import TasmotaPlug

CONFIG = "tasmota/discovery/AABBCCDDEEFF/config"


def config(topic="strip", **changes):
    """As Tasmota 14 says it, with what is of no account left out."""
    said = {
        "ip": "192.0.2.7", "dn": "Strip", "hn": "strip-1", "mac": "AABBCCDDEEFF", "md": "Athom", "t": topic,
        "ft": "%prefix%/%topic%/", "sw": "14.2.0", "rl": [1, 1, 0, 0], "ver": 1,
    }  # fmt: skip
    return json.dumps(said | changes).encode()


def heard(*messages):
    announced = Announcements()
    for topic, payload in messages:
        announced.hear(topic, payload)
    return announced


def test_a_plug_that_describes_itself():
    (plug,) = heard((CONFIG, config()), ("tele/strip/LWT", b"Online")).candidates()
    assert plug.keys == {"driver": "tasmota", "topic": "strip"}
    assert plug.outlets == ("1", "2")
    assert plug.about == "Tasmota device Strip, Athom, 14.2.0, 192.0.2.7"
    assert plug.hints == ()


def test_its_own_full_topic_is_written_and_its_absence_is_said():
    plugs = heard((CONFIG, config(ft="home/%topic%/%prefix%/")), ("strip/tele/LWT", b"Offline")).candidates()
    assert [plug.keys.get("full_topic") for plug in plugs] == ["home/%topic%/%prefix%/"]
    assert plugs[0].hints == ("It is offline now.",)
    TasmotaSettings.model_validate(plugs[0].keys)


def test_one_of_which_only_the_will_is_known():
    plugs = heard(("tele/a/LWT", b"Online"), ("b/tele/LWT", b"Online")).candidates()
    assert [(plug.keys["topic"], plug.keys.get("full_topic")) for plug in plugs] == [
        ("a", None),
        ("b", "%topic%/%prefix%/"),
    ]


def test_a_sensor_switches_nothing():
    assert heard((CONFIG, config(rl=[0, 0]))).candidates() == []


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b'{"t": 5}', b"\xff", b"[" * 5000, config(t="a b"),
                                     config(ft="cmnd/only"), config(t="+")])  # fmt: skip
def test_what_is_no_description_is_named(payload):
    announced = heard((CONFIG, payload))
    assert announced.candidates() == []
    assert [problem.where for problem in announced.strange] == [CONFIG]


def test_shelly_says_only_that_it_is_there():
    (plug,) = heard(("shellyplus1-a8032ab12345/online", b"true"), ("printer/online", b"true")).candidates()
    assert plug.stem == "shellyplus1-a8032ab12345"
    assert "--network" in plug.unwritten


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["t", "ft", "rl", "dn"]), inner),
    max_leaves=8,
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([CONFIG, "tele/x/LWT", "x/tele/LWT", "shelly1-aabbccddeeff/online"]) | st.text(),
            st.binary(max_size=40) | JSON.map(lambda said: json.dumps(said).encode()) | st.just(b"Online"),
        ),
        max_size=6,
    )
)
def test_nothing_that_is_said_upsets_it_and_every_plug_loads(messages):
    for plug in heard(*messages).candidates():
        if not plug.unwritten:
            TasmotaSettings.model_validate(plug.keys)


def test_a_flood_is_cut():
    announced = heard(*((f"tele/t{number}/LWT", b"Online") for number in range(3000)))
    assert len(announced.candidates()) == 2000


async def test_at_a_real_server(mqtt):
    server, announced = MqttSettings(url=mqtt.url), Announcements()
    async with TasmotaPlug(server, "attic"), TasmotaPlug(server, "strip", relays=2) as strip:
        await strip.say(CONFIG, config().decode(), retain=True)
        await strip.say("shellyplugs-aabbccddeeff/online", "true", retain=True)
        async with asyncio.timeout(60):
            while len(announced.candidates()) < 3:
                assert await listen(server, announced, listen_s=1.0) is None
        assert strip.commands == [], "nobody is disturbed"
    assert [plug.stem for plug in announced.candidates()] == ["strip", "attic", "shellyplugs-aabbccddeeff"]


async def test_a_server_that_is_not_there_or_does_not_let_us_in(mosquitto_server):
    nowhere = await listen(MqttSettings(url="mqtt://127.0.0.1:1"), Announcements())
    assert "refused" in nowhere.what
    closed = mosquitto_server(extra="allow_anonymous false\n")
    shut = await listen(MqttSettings(url=closed.url), Announcements())
    assert "refused: Not authorized" in shut.what
    assert "--mqtt" in shut.do


def test_filters_touch_nothing_of_our_own():
    assert not any(words.startswith(("#", "boardhand", "+/+/+")) for words in FILTERS)


# --- by HTTP --------------------------------------------------------------------------------------------------------

GEN2 = {"id": "shellypro4pm-a8032ab12345", "mac": "A8032AB12345", "gen": 2, "app": "Pro4PM", "auth_en": False}


async def look(said, status=200):
    text = said if isinstance(said, str) else json.dumps(said)
    answers = {"/shelly": (status, text, {})}
    async with PlugServer(outlets=1, answers=answers) as plug, ShellyFinder(plug.port, timeout_s=20.0) as finder:
        return plug, await finder.look(ip_address("127.0.0.1"))


async def test_a_shelly_of_the_second_generation():
    plug, found = await look(GEN2)
    assert ShellySettings.model_validate(found.keys).url == plug.url
    assert found.about.startswith("Shelly Pro4PM (generation 2)")
    assert found.hints == ()
    assert plug.requests == [("GET", "/shelly")]


async def test_one_with_a_password():
    _, found = await look(GEN2 | {"auth_en": True})
    assert "password_file" in found.hints[0]


@pytest.mark.parametrize("said", ["", "<html>", "[1]", "{}", '{"id": 4, "gen": 2}', "[" * 3000, '"' + "x" * 5000 + '"'])
async def test_other_web_servers_are_none(said):
    assert (await look(said))[1] is None


@pytest.mark.parametrize("status", [404, 500, 301])
async def test_other_answers_are_none(status):
    assert (await look(GEN2, status))[1] is None


async def test_one_that_never_answers():
    async with PlugServer(outlets=1, deaf=True) as plug, ShellyFinder(plug.port, timeout_s=0.3) as finder:
        assert await finder.look(ip_address("127.0.0.1")) is None
