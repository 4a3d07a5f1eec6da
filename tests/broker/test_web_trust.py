"""Boards' health and boards that would join, over the API, with the real broker behind it."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.strangers import MOST_STRANGERS, Strangers
from tests.broker.live import PATIENCE_S, BrokerProcess
from tests.broker.test_web import serving, token_for
from wire.payloads import ErrorInfo, Registration, RegistrationAnswer, encode
from wire.phases import ErrorKind

NOW = datetime(2026, 11, 21, 10, tzinfo=UTC)
MAC = "52:54:00:00:00:99"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return file, {role: token_for(file, role, role) for role in ("reader", "user", "operator")}


async def test_a_persons_word_on_a_board(tmp_path, tokens):
    file, known = tokens
    job = tmp_path / "health.yaml"
    job.write_text("name: health\nsteps: [memtester]\n")
    async with serving(tmp_path, file) as (farm, api):
        broker = BrokerProcess(tmp_path, int(farm.link._settings.port), idle_s=0)
        with broker.settings.open("a") as settings:
            settings.write(f'[[broker.health]]\njob = "{job}"\ntrain_boots = 0\n')
        farm.hold.add("power")  # it stays as it is: nothing comes up by itself
        broker.start()
        try:
            await farm.broker_state("online")
            path = "/api/v1/boards/b1"
            now = lambda *words: lambda found: found["boards"] and found["boards"][0]["health"] in words
            await api.until(f"{path}/health", known["reader"], now("due", "checking"))
            for what in ("accept", "check", "retire", "forget"):
                status, _, _ = await api.call("POST", f"{path}/trust/{what}", known["user"])
                assert status == 403, what
            for what, becomes in (
                ("accept", "trusted"),
                ("check", "checking"),
                ("retire", "retired"),
                ("accept", "trusted"),
            ):
                status, found, _ = await api.call("POST", f"{path}/trust/{what}", known["operator"])
                assert (status, found["board"]) == (200, "b1"), found
                await api.until(f"{path}/health", known["reader"], now(becomes, "due" if what == "check" else becomes))
            status, found, _ = await api.call("POST", f"{path}/trust/forget", known["operator"])
            assert status in {403, 409}, "an agent has it"
            assert "b1" in found["error"]["message"]
            assert (await api.call("POST", f"{path}/trust/praise", known["operator"]))[0] == 400
            status, found, _ = await api.call("POST", "/api/v1/boards/nemo/trust/accept", known["operator"])
            assert (status, found["error"]["kind"]) == (404, "unknown-board")
            status, found, _ = await api.call("POST", "/api/v1/boards/b2/trust/accept", known["operator"])
            assert status == 200, found
            _, text, _ = await api.call("GET", "/metrics", known["reader"])
            assert "boardhand_people_waiting 0.0" in text
            wish = {"board": "b2", "for_s": 600, "wait": True}
            assert (await api.call("POST", "/api/v1/leases", known["operator"], json=wish))[0] == 201
            assert (await api.call("POST", "/api/v1/leases", known["user"], json=wish))[0] == 201
            _, text, _ = await api.call("GET", "/metrics", known["reader"])
            assert "boardhand_people_waiting 1.0" in text
            held = lambda found: 'boardhand_boards_leased{kind="person"} 1.0' in found
            await api.until("/metrics", known["reader"], held)
        finally:
            broker.cleanup()


def asked(mac=MAC, boot_id="boot-1", **more):
    return Registration(mac=mac, boot_id=boot_id, arch="arm64", memory_mb=2048, proof="ab" * 32, **more)


def refused(boot_id="boot-1", message="no board has its MAC"):
    error = ErrorInfo(kind=ErrorKind.UNKNOWN_BOARD, message=message)
    return RegistrationAnswer(ok=False, boot_id=boot_id, agent="lab1", error=error)


async def test_an_unknown_board_that_asked_is_shown_with_what_it_said(tmp_path, tokens):
    file, known = tokens
    async with serving(tmp_path, file) as (farm, api):
        await api.until("/api/v1/boards", known["reader"], lambda boards: len(boards) == 2)
        assert (await api.call("GET", "/api/v1/strangers"))[0] == 401
        head = {"Authorization": f"Bearer {known['reader']}"}
        async with api.session.get(f"{api.base}/api/v1/live", headers=head) as live, asyncio.timeout(PATIENCE_S):
            await live.content.readline()
            await farm.say(farm.topics.register(), encode(asked(serial="10000000abcdef")))
            await farm.say(farm.topics.register_answer(MAC), encode(refused()))
            while (await live.content.readline()) != b"event: stranger\n":
                pass
        (found,) = await api.until("/api/v1/strangers", known["reader"], len)
        assert (found["mac"], found["agent"], found["times"]) == (MAC, "lab1", 1)
        assert found["why"] == "no board has its MAC"
        assert found["said"] == {"arch": "arm64", "memory_mb": 2048, "serial": "10000000abcdef"} | {
            key: found["said"][key] for key in found["said"].keys() - {"arch", "memory_mb", "serial"}
        }
        assert "proof" not in json.dumps(found)
        assert (await api.call("POST", f"/api/v1/strangers/{MAC}/forget", known["user"]))[0] == 403
        assert (await api.call("POST", f"/api/v1/strangers/{MAC}/forget", known["operator"]))[0] == 200
        assert (await api.call("POST", f"/api/v1/strangers/{MAC}/forget", known["operator"]))[0] == 404
        assert (await api.call("GET", "/api/v1/strangers", known["reader"]))[1] == []


def test_who_is_let_in_at_last_is_no_stranger():
    strangers = Strangers("boardhand")
    strangers.feed("boardhand/register", encode(asked()), NOW)
    assert strangers.all() == [], "nobody has answered yet"
    (change,) = strangers.feed("boardhand/register/525400000099", encode(refused()), NOW)
    assert (change.kind, change.document["why"]) == ("stranger", "no board has its MAC")
    strangers.feed("boardhand/register", encode(asked(boot_id="boot-2")), NOW + timedelta(minutes=5))
    assert strangers.feed("boardhand/register/525400000099", encode(refused("boot-1")), NOW) == [], "an old answer"
    (found,) = strangers.all()
    assert (found["times"], found["first"], found["last"]) == (
        2,
        "2026-11-21T10:00:00+00:00",
        "2026-11-21T10:05:00+00:00",
    )
    welcome = RegistrationAnswer(ok=True, boot_id="boot-2", board="pi", agent="lab1")
    (change,) = strangers.feed("boardhand/register/525400000099", encode(welcome), NOW)
    assert change.document == {"mac": MAC, "gone": True}
    assert strangers.all() == []


def test_whoever_invents_addresses_fills_no_memory():
    strangers = Strangers("boardhand")
    for n in range(MOST_STRANGERS + 50):
        mac = f"52:54:00:00:{n // 256:02x}:{n % 256:02x}"
        strangers.feed("boardhand/register", encode(asked(mac, f"boot-{n}")), NOW)
        strangers.feed(f"boardhand/register/{mac}", encode(refused(f"boot-{n}")), NOW)
    assert len(strangers.all()) == MOST_STRANGERS


@given(st.sampled_from(["boardhand/register", "boardhand/register/x", "boardhand/else"]), st.binary(max_size=60))
def test_noise_changes_nothing(topic, payload):
    strangers = Strangers("boardhand")
    assert strangers.feed(topic, payload, NOW) == []
    assert strangers.all() == []
