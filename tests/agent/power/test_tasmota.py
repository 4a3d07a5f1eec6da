"""Tasmota: the rules alone, and the driver with a virtual device on a real Mosquitto server."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.drivers.plug_link import PlugLink
from agent.power.drivers.tasmota_words import Conversation, End, Topics, relay_power, relay_words, relays_in, watts_in
from agent.power.errors import AuthenticationError, ConfigurationError, UnreachableError
from agent.power.kinds.tasmota import KIND, TasmotaSettings
from daemon.mqtt_settings import MqttSettings
from virtual_lab.tasmota_plug import TasmotaPlug
from wire.phases import Power

# --- the rules, without a network -----------------------------------------------------------------------------------

TOPICS = Topics("plug", "%prefix%/%topic%/")
ANSWER, LWT = "stat/plug/POWER1", "tele/plug/LWT"


def test_topics_follow_full_topic():
    assert TOPICS.base("cmnd") == "cmnd/plug/"
    assert TOPICS.subscriptions == ["stat/plug/+", LWT]
    assert Topics("lab/p1", "home/%topic%/%prefix%").base("stat") == "home/lab/p1/stat/"


def test_only_a_fresh_message_after_the_question_is_its_answer():
    talk = Conversation(TOPICS)
    assert talk.heard(ANSWER, b"ON", retained=False) == []
    question = talk.ask(*relay_words("1"))
    assert talk.heard(ANSWER, b"ON", retained=True) == []
    assert talk.heard("stat/plug/POWER2", b"ON", retained=False) == []
    assert talk.heard("stat/plug2/POWER1", b"ON", retained=False) == []
    assert talk.heard("stat/plug/RESULT", b'{"POWER1":"ON"}', retained=False) == []
    assert question.end is None
    assert talk.heard(ANSWER, b"OFF", retained=False) == [question]
    assert (question.end, question.payload) == (End.ANSWERED, b"OFF")
    assert talk.heard(ANSWER, b"ON", retained=False) == []
    assert question.payload == b"OFF"


def test_offline_ends_questions_of_now_and_to_come():
    talk = Conversation(TOPICS, relays=("1",))
    question = talk.ask("POWER1")
    assert talk.heard(LWT, b"Offline", retained=True) == [question]
    assert question.end is End.OFFLINE
    assert talk.relays is None
    assert talk.ask("POWER1").end is End.OFFLINE
    talk.heard(LWT, b"Online", retained=False)
    later = talk.ask("POWER1")
    assert later.end is None
    assert talk.disconnected() == [later]
    assert (later.end, talk.online) == (End.DISCONNECTED, None)


def test_a_fresh_word_says_that_it_lives():
    talk = Conversation(TOPICS, online=False)
    talk.heard("stat/plug/RESULT", b"{}", retained=True)
    assert talk.online is False
    talk.heard("stat/plug/RESULT", b"{}", retained=False)
    assert talk.online is True


MESSAGES = st.tuples(
    st.sampled_from([ANSWER, "stat/plug/POWER", LWT, "stat/plug/STATUS11", "stat/other/POWER1", "tele/plug/STATE"]),
    st.sampled_from([b"ON", b"OFF", b"Online", b"Offline", b"\xff", b""]),
    st.booleans(),
)


@given(st.lists(MESSAGES | st.just("ask") | st.just("lost"), max_size=30))
def test_every_question_ends_once_and_by_what_came_after_it(events):
    talk = Conversation(TOPICS)
    asked, open_now = [], set()
    for event in events:
        if event == "ask":
            question = talk.ask(*relay_words("1"))
            asked.append(question)
            if question.end is None:
                open_now.add(question)
            else:
                assert talk.online is False
            continue
        if event == "lost":
            ended = talk.disconnected()
            assert set(ended) == open_now
        else:
            topic, payload, retained = event
            ended = talk.heard(topic, payload, retained=retained)
            if ended and topic != LWT:
                assert not retained and topic in {ANSWER, "stat/plug/POWER"}
                assert all(question.payload == payload for question in ended)
        assert set(ended) <= open_now
        open_now -= set(ended)
        assert all(question.end is not None for question in ended)
    assert all(question.end is None for question in open_now)


@given(st.binary(max_size=60))
def test_no_payload_makes_the_decoders_stumble(payload):
    assert relay_power(payload) in {Power.ON, Power.OFF, None}
    for decode in (relays_in, lambda p: watts_in(p, "1", 1)):
        try:
            decode(payload)
        except ValueError:
            continue


def test_relays_and_watts():
    states = {"StatusSTS": {"POWER10": "ON", "POWER2": "OFF", "POWER1": "Hold", "POWERS": "ON", "Wifi": {}}}
    assert relays_in(json.dumps(states).encode()) == {"1": Power.UNKNOWN, "2": Power.OFF, "10": Power.ON}
    assert relays_in(b'{"StatusSTS": {"POWER": "ON"}}') == {"1": Power.ON}

    def sensors(power):
        return json.dumps({"StatusSNS": {"ENERGY": {"Power": power}}}).encode()

    assert watts_in(sensors(12), "1", 1) == 12.0
    assert watts_in(sensors(12), "1", 2) is None, "a sum is no relay's own"
    assert watts_in(sensors([3, 4.5]), "2", 2) == 4.5
    assert watts_in(sensors([3]), "2", 2) is None
    assert watts_in(b'{"StatusSNS": {}}', "1", 1) is None
    for wrong in (sensors("12"), sensors(True), b"[]", b"{}", b"\xff", b"[" * 5000):
        with pytest.raises(ValueError):
            watts_in(wrong, "1", 1)


# --- on a real server ------------------------------------------------------------------------------------------------


@pytest.fixture
async def connect(mqtt):
    context, queues = DriverContext(mqtt=MqttSettings(url=mqtt.url)), []

    def make(topic="plug", **changes):
        settings = TasmotaSettings(driver="tasmota", topic=topic, **{"timeout_s": 20.0, **changes})
        queue = ControllerQueue(topic, KIND.driver(topic, settings, context))
        queues.append(queue)
        return queue

    make.context = context
    yield make
    for queue in queues:
        await queue.close()
    await context.close()


@pytest.fixture
def server(mqtt):
    return MqttSettings(url=mqtt.url)


@pytest.mark.parametrize("numbered", [False, True])
async def test_one_relay(connect, server, numbered):
    queue = connect()
    async with TasmotaPlug(server, "plug", numbered=numbered, metered="sum") as plug:
        assert await queue.get("1") is Power.OFF
        await queue.set("1", True)
        assert plug.edges == [(1, True)]
        assert await queue.get("1") is Power.ON
        assert await queue.read("1") == 12.0
        assert await queue.read_many(["1", "2"]) == {"1": 12.0, "2": None}
        assert "14.2.0(release-tasmota) on ESP8285N08" in await queue.identify()
        await plug.press(1, on=False)
        assert await queue.get("1") is Power.OFF


async def test_several_relays_and_one_that_is_not_there(connect, server):
    queue = connect(full_topic="lab/%topic%/%prefix%/")
    async with TasmotaPlug(server, "plug", full_topic="lab/%topic%/%prefix%/", relays=4, metered="each") as plug:
        await queue.set("3", True)
        assert plug.on == {1: False, 2: False, 3: True, 4: False}
        assert [(d.outlet, d.power) for d in await queue.describe()][2] == ("3", Power.ON)
        plug.commands.clear()
        found = await queue.get_many(["1", "3", "5"])
        assert (found["1"], found["3"]) == (Power.OFF, Power.ON)
        assert isinstance(found["5"], ConfigurationError) and "it has 1, 2, 3, 4" in str(found["5"])
        assert plug.commands == [("STATUS", "11")]
        assert await queue.read_many(["1", "3"]) == {"1": 0.0, "3": 12.0}
        with pytest.raises(ConfigurationError, match=r"plug:5: has no such relay"):
            await queue.set("5", True)
        assert all(word != "POWER5" for word, _ in plug.commands)


async def test_a_retained_state_is_never_taken_for_the_answer(connect, server):
    queue = connect(timeout_s=0.5)
    async with TasmotaPlug(server, "plug", numbered=True, retain=True) as plug:
        await queue.set("1", True)
        plug._become(1, on=False)  # and says nothing of it
        plug.delay_s = 0.1
        assert await queue.get("1") is Power.OFF
        await plug.say("stat/plug/POWER1", "ON", retain=True)
        await queue.close()
        plug.silent = True
        other = connect(timeout_s=0.5)
        with pytest.raises(UnreachableError):
            await other.get("1")


async def test_offline_is_known_at_once_and_online_again(connect, server, until):
    queue = connect(timeout_s=60)
    async with TasmotaPlug(server, "plug"):
        assert await queue.get("1") is Power.OFF
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"plug:1: is offline, as its will"):
        await queue.set("1", True)
    later = connect(timeout_s=60)
    with pytest.raises(UnreachableError, match=r"is offline"):
        await later.get("1")
    assert time.monotonic() - began < 40, "not one timeout was waited for"
    async with TasmotaPlug(server, "plug"):
        await until(lambda: queue.driver._talk.online)
        assert await queue.get("1") is Power.OFF


async def test_a_device_that_is_killed_is_offline_by_its_will(connect, mqtt, until):
    program = [sys.executable, "-m", "virtual_lab.tasmota_plug", "--url", mqtt.url, "--topic", "plug", "--stop-at-eof"]
    child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        ready = json.loads(await asyncio.to_thread(child.stdout.readline))
        assert ready == {"ready": True, "topic": "plug"}
        queue = connect()
        await queue.set("1", True)
        child.stdin.write(b'{"do": "silent", "value": true}\n')
        child.stdin.flush()
        assert json.loads(await asyncio.to_thread(child.stdout.readline))["on"] == {"1": True}
        asking = asyncio.create_task(queue.get("1"))
        await until(lambda: queue.driver._waiting)
        child.send_signal(signal.SIGKILL)
        with pytest.raises(UnreachableError, match=r"is offline"):
            await asking
    finally:
        child.kill()
        child.wait(60)
        child.stdin.close()
        child.stdout.close()


async def test_silence_is_unreachable_in_time_and_the_next_call_works(connect, server):
    queue = connect(timeout_s=1.5)
    with pytest.raises(UnreachableError, match=r"check topic and full_topic: nothing was ever heard on tele/plug/LWT"):
        await queue.get("1")
    async with TasmotaPlug(server, "plug", silent=True) as plug:
        with pytest.raises(UnreachableError, match=r"plug:1: did not answer cmnd/plug/STATUS within 1.5 s"):
            await queue.set("1", True)
        plug.silent = False
        assert await queue.get("1") is Power.OFF
        plug.silent = True
        call = asyncio.create_task(queue.driver.get("1"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert not queue.driver._waiting
        plug.silent = False
        assert await queue.get("1") is Power.OFF


async def test_a_lying_device_shows_in_the_read_back(connect, server):
    queue = connect()
    async with TasmotaPlug(server, "plug", lying=True):
        await queue.set("1", True)
        assert await queue.get("1") is Power.OFF


async def test_words_that_are_not_tasmotas(connect, server, until):
    queue = connect()
    async with TasmotaPlug(server, "plug", numbered=True) as plug:
        assert await queue.get("1") is Power.OFF
        plug.silent = True
        asking = asyncio.create_task(queue.get("1"))
        await until(lambda: queue.driver._waiting)
        await plug.say("stat/plug/POWER1", "AUS")
        with pytest.raises(ConfigurationError, match=r"'AUS'.*StateText"):
            await asking
        asking = asyncio.create_task(queue.identify())
        await until(lambda: queue.driver._waiting)
        await plug.say("stat/plug/STATUS2", "<html>")
        with pytest.raises(ConfigurationError, match=r"STATUS2 is not Tasmota's"):
            await asking


async def test_the_server_goes_away_and_comes_back(connect, mqtt, server, until):
    queue = connect(timeout_s=4.0)
    async with TasmotaPlug(server, "plug") as plug:
        assert await queue.get("1") is Power.OFF
        plug.silent = True
        asking = asyncio.create_task(queue.get("1"))
        await until(lambda: queue.driver._waiting)
        mqtt.kill()
        with pytest.raises(UnreachableError, match=r"connection to the MQTT server was lost|connection ended"):
            await asking
        with pytest.raises(UnreachableError, match=r"no connection to the MQTT server mqtt://"):
            await queue.get("1")
        mqtt.start()
        plug.silent = False
        await until(lambda: plug._link.connected)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await queue.get("1") is Power.OFF
                    break
                except UnreachableError:
                    await asyncio.sleep(0.1)


async def test_a_server_that_does_not_let_us_in(mosquitto_server, tmp_path):
    closed = mosquitto_server(extra="allow_anonymous false\n")
    context = DriverContext(mqtt=MqttSettings(url=closed.url))
    settings = TasmotaSettings(driver="tasmota", topic="plug", timeout_s=1.0)
    queue = ControllerQueue("plug", KIND.driver("plug", settings, context))
    with pytest.raises(AuthenticationError, match=r"plug:1: no connection to the MQTT server mqtt.*refused"):
        await queue.get("1")
    await queue.close()
    await context.close()


async def test_one_connection_for_all_devices_of_a_server_and_one_table_of_its_own(connect, mosquitto_server, server):
    other = MqttSettings(url=mosquitto_server().url)
    a, b, c = connect("a"), connect("b"), connect("c", mqtt=other)
    links = [item for item in connect.context._shared.values() if isinstance(item, PlugLink)]
    assert [link.settings for link in links] == [server, other]
    async with TasmotaPlug(server, "a"), TasmotaPlug(server, "b"), TasmotaPlug(other, "c") as far:
        await asyncio.gather(a.set("1", True), b.set("1", True), c.set("1", True))
        assert far.edges == [(1, True)]
        late = connect("late")
        async with TasmotaPlug(server, "late"):
            assert await late.get("1") is Power.OFF
        assert await a.get("1") is Power.ON


async def test_without_a_server():
    queue = ControllerQueue("plug", KIND.driver("plug", TasmotaSettings(driver="tasmota", topic="x"), DriverContext()))
    with pytest.raises(ConfigurationError, match=r"no MQTT server is set; give it an mqtt table"):
        await queue.get("1")
    await queue.close()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"topic": "a/#"}, "no wildcards"),
        ({"topic": ""}, "at least 1"),
        ({"full_topic": "%topic%/"}, "needs %prefix% once"),
        ({"full_topic": "+/%prefix%/%topic%"}, "no wildcards"),
        ({"mqtt": {"url": "http://x"}}, "is not mqtt://"),
        ({"relay": 1}, "Extra inputs"),
    ],
)
def test_settings_are_strict(changes, text):
    with pytest.raises(ValidationError, match=text):
        TasmotaSettings.model_validate({"driver": "tasmota", "topic": "plug", **changes})
