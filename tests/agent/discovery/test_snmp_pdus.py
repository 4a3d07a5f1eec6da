"""PDUs found on a network: virtual ones of several makers, and things that are none."""

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_address, ip_network

import pytest

from agent.discovery.findings import Candidate, Problem
from agent.discovery.settings_text import Additions, inserted, named
from agent.discovery.snmp_pdus import OtherDevice, SnmpAccess, SnmpFinder
from agent.discovery.sweep import addresses_of, ask_each
from agent.power.drivers.snmp import SnmpDriver
from agent.power.drivers.snmp_engine import EnginePool
from agent.power.errors import ConfigurationError
from agent.settings import load
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from wire.phases import Power

AUTH, PRIV = "an-auth-passphrase", "a-priv-passphrase"
USER = V3User("operator", "sha256", AUTH, "aes", PRIV)


@pytest.fixture
def community(tmp_path):
    path = tmp_path / "community"
    path.write_text("public\n")
    return path


@pytest.fixture
async def finder(community):
    made = []

    async def make(port):
        made.append(SnmpFinder([SnmpAccess({"community_file": str(community)}, port)]))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


class Answers(asyncio.DatagramProtocol):
    """Something at the port that answers everything with `words`."""

    def __init__(self, words):
        self.words = words

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        self.transport.sendto(self.words, address)


async def test_a_network_with_pdus_a_switch_and_nonsense(finder, community, tmp_path):
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(VirtualPdu(PduSettings(host="127.0.0.2", model="eaton-g3", outlets=4)))
        port = first.port
        for host, model, outlets in (("127.0.0.3", None, 8), ("127.0.0.4", "poe-rfc3621", 6)):
            settings = PduSettings(host=host, port=port, model=model, outlets=outlets)
            await stack.enter_async_context(VirtualPdu(settings))
        loop = asyncio.get_running_loop()
        noise, _ = await loop.create_datagram_endpoint(lambda: Answers(b"\x30\x82garbage"), ("127.0.0.5", port))
        stack.callback(noise.close)
        one = await finder(port)
        async with asyncio.timeout(60):
            answers = await ask_each(addresses_of([ip_network("127.0.0.0/29")]), one.look)
    found = {str(ip_address("127.0.0.1") + at): answer for at, answer in enumerate(answers)}
    assert found["127.0.0.1"] is found["127.0.0.5"] is found["127.0.0.6"] is None
    eaton, apc, switch = (found[f"127.0.0.{last}"] for last in (2, 3, 4))
    assert eaton.keys["family"].startswith("eaton")
    assert eaton.outlets == ("1", "2", "3", "4")
    assert apc.keys["family"].startswith("apc")
    assert switch.keys["family"] == "poe-rfc3621"
    assert len(switch.outlets) == 6
    path = tmp_path / "settings.toml"
    head = f'[agent]\nname = "a"\nstate_dir = "{tmp_path}"\n'
    path.write_text(inserted(head, Additions(named([eaton, apc, switch], ()))))
    controllers = load(path).controllers.values()
    assert [controller.host for controller in controllers] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    assert [controller.port for controller in controllers] == [port] * 3
    assert {controller.community_file for controller in controllers} == {community}


async def test_a_device_that_switches_nothing_is_named_as_what_it_is(finder, monkeypatch):
    monkeypatch.setattr("agent.power.drivers.snmp.suspects", lambda *_: [])
    monkeypatch.setattr("agent.power.drivers.snmp.last_resorts", lambda *_: [])
    async with VirtualPdu(PduSettings(outlets=2)) as pdu:
        found = await (await finder(pdu.port)).look(ip_address("127.0.0.1"))
    assert isinstance(found, OtherDevice)
    assert "sysObjectID 1.3.6.1.4.1.318" in found.about


async def test_a_slow_one_is_waited_for(finder):
    async with VirtualPdu(PduSettings(outlets=2, model="hpe-g2")) as pdu:
        pdu.late_s = 1.2
        found = await (await finder(pdu.port)).look(ip_address("127.0.0.1"))
    assert (found.keys["family"], found.outlets) == ("hpe-g2", ("0.1", "0.2"))


async def test_another_community_is_silence(finder):
    async with VirtualPdu(PduSettings(outlets=2, read_community="secret")) as pdu:
        assert await (await finder(pdu.port)).look(ip_address("127.0.0.1")) is None


async def test_only_questions_are_asked(finder):
    async with VirtualPdu(PduSettings(outlets=2)) as pdu:
        await (await finder(pdu.port)).look(ip_address("127.0.0.1"))
        assert pdu.sets == []


async def test_one_that_falls_silent_halfway_is_a_problem_and_not_a_pdu(finder, monkeypatch):
    async with VirtualPdu(PduSettings(outlets=2)) as pdu:
        one = await finder(pdu.port)
        told = SnmpFinder._of

        async def and_then_silent(self, *words):
            pdu.control('{"do": "deaf", "value": true}')
            return await told(self, *words)

        monkeypatch.setattr(SnmpFinder, "_of", and_then_silent)
        found = await one.look(ip_address("127.0.0.1"))
    assert isinstance(found, Problem)
    assert "no answer from 127.0.0.1" in found.what


async def test_one_that_is_too_slow_is_said_to_be(finder, monkeypatch):
    monkeypatch.setattr("agent.discovery.snmp_pdus.DETECTION_S", 0.0)
    async with VirtualPdu(PduSettings(outlets=2)) as pdu:
        found = await (await finder(pdu.port)).look(ip_address("127.0.0.1"))
    assert isinstance(found, Problem)
    assert "within 0 s" in found.what


async def test_a_community_that_cannot_be_read_ends_it_before_anybody_is_asked(tmp_path):
    one = SnmpFinder([SnmpAccess({"community_file": str(tmp_path / "none")})])
    with pytest.raises(ConfigurationError, match="none cannot be read"):
        await one.start()
    one.close()


async def test_the_community_is_named_and_not_told(finder):
    async with VirtualPdu(PduSettings(outlets=2)) as pdu:
        found = await (await finder(pdu.port)).look(ip_address("127.0.0.1"))
    assert isinstance(found, Candidate)
    assert "public" not in repr(found), "the secret stays in its file"


# --- version 3 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def user_keys(tmp_path, monkeypatch):
    """One key in a file, the other in the environment."""
    (tmp_path / "auth-key").write_text(f"{AUTH}\n")
    monkeypatch.setenv("PDU_PRIV_KEY", PRIV)
    return {
        "version": "3", "user": "operator", "auth_protocol": "sha256", "auth_key_file": str(tmp_path / "auth-key"),
        "priv_protocol": "aes", "priv_key_env": "PDU_PRIV_KEY",
    }  # fmt: skip


async def looked(accesses):
    finder = SnmpFinder(accesses)
    try:
        await finder.start()
        return await finder.look(ip_address("127.0.0.1"))
    finally:
        finder.close()


async def test_a_pdu_of_version_3_is_written_and_what_was_written_switches_it(user_keys, tmp_path):
    async with VirtualPdu(PduSettings(model="eaton-g3", outlets=2, users=(USER,), read_community="no")) as pdu:
        found = await looked([SnmpAccess(user_keys, pdu.port)])
        assert found.keys == {
            "driver": "snmp", "host": "127.0.0.1", "port": pdu.port, "version": "3", "family": "eaton-g3",
            **{key: value for key, value in user_keys.items() if key != "version"},
        }  # fmt: skip
        assert pdu.sets == [], "nothing was switched"
        path = tmp_path / "settings.toml"
        text = inserted(f'[agent]\nname = "a"\nstate_dir = "{tmp_path}"\n', Additions(named([found], ())))
        path.write_text(text)
        ((name, settings),) = load(path).controllers.items()
        driver = SnmpDriver(name, settings, EnginePool())
        try:
            await driver.set("2", True)
            assert await driver.get("2") is Power.ON
            assert await driver.get("1") is Power.OFF
        finally:
            await driver.close()
    assert "The agent needs PDU_PRIV_KEY in its environment." in text
    assert AUTH not in repr(found) + text
    assert PRIV not in repr(found) + text


async def test_with_user_and_community_each_device_gets_what_it_knows(user_keys, community):
    async with VirtualPdu(PduSettings(outlets=2, model="hpe-g2", users=(USER,))) as both:
        accesses = [SnmpAccess(user_keys, both.port), SnmpAccess({"community_file": str(community)}, both.port)]
        assert (await looked(accesses)).keys["version"] == "3"
    async with VirtualPdu(PduSettings(outlets=2, model="hpe-g2")) as old:
        accesses = [SnmpAccess(user_keys, old.port), SnmpAccess({"community_file": str(community)}, old.port)]
        assert (await looked(accesses)).keys["community_file"] == str(community)


async def test_a_user_that_the_device_does_not_know_is_a_problem(user_keys):
    async with VirtualPdu(PduSettings(outlets=2, users=(USER,))) as pdu:
        found = await looked([SnmpAccess({**user_keys, "user": "nobody"}, pdu.port)])
    assert isinstance(found, Problem)
    assert found.where == "127.0.0.1"


async def test_a_key_that_is_too_short_ends_it_before_anybody_is_asked(user_keys, monkeypatch):
    monkeypatch.setenv("PDU_PRIV_KEY", "short")
    with pytest.raises(ConfigurationError, match="PDU_PRIV_KEY has fewer than 8"):
        await looked([SnmpAccess(user_keys)])
