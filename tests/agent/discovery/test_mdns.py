"""Multicast DNS: the codec against dnspython's own messages and noise, and avahi-daemon as the foreign program."""

import asyncio
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discovery.mdns import SERVICES, Announced, Answers, browse, question, servers, shelly_addresses

ROOT = Path(__file__).resolve().parents[3]
CACHE_FLUSH_IN = 0x8001


def reply(*, flush=True):
    """As avahi says it: pointer, place and addresses in one datagram, the class of what is its own with the top bit."""
    message = dns.message.make_response(dns.message.from_wire(question()), our_payload=None)
    message.id = 0
    message.answer = [
        dns.rrset.from_text("_mqtt._tcp.local.", 10, "IN", "PTR", r"Attic\032broker._mqtt._tcp.local."),
        dns.rrset.from_text(r"Attic\032broker._mqtt._tcp.local.", 10, "IN", "SRV", "0 0 1883 Attic.local."),
        dns.rrset.from_text("_shelly._tcp.local.", 10, "IN", "PTR", "shelly-1._shelly._tcp.local."),
        dns.rrset.from_text("shelly-1._shelly._tcp.local.", 10, "IN", "SRV", "0 0 80 shelly-1.local."),
    ]
    message.additional = [
        dns.rrset.from_text("attic.local.", 10, "IN", "A", "192.0.2.5"),
        dns.rrset.from_text("attic.local.", 10, "IN", "AAAA", "2001:db8::5"),
        dns.rrset.from_text("shelly-1.local.", 10, "IN", "A", "192.0.2.6"),
    ]
    wire = bytearray(message.to_wire())
    return bytes(_flush(wire)) if flush else bytes(wire)


def _flush(wire):
    at = wire.find(struct.pack("!HH", 33, 1))
    while at >= 0:
        struct.pack_into("!H", wire, at + 2, CACHE_FLUSH_IN)
        at = wire.find(struct.pack("!HH", 33, 1), at + 1)
    return wire


@pytest.mark.parametrize("flush", [False, True])
def test_an_answer_in_one_datagram(flush):
    answers = Answers()
    answers.hear(reply(flush=flush))
    found = answers.announced()
    assert found[0] == Announced("mqtt", "Attic broker", "attic.local", 1883, ("192.0.2.5", "2001:db8::5"))
    assert [server.url for server in servers(found)] == ["mqtt://192.0.2.5:1883"]
    assert shelly_addresses(found) == ["192.0.2.6"]


def test_with_tls_the_name_stays_since_the_certificate_is_for_it():
    found = [Announced("mqtts", "x", "attic.local", 8883, ("192.0.2.5",))]
    assert [server.url for server in servers(found)] == ["mqtts://attic.local:8883"]


@given(st.binary(max_size=200))
def test_noise(datagram):
    answers = Answers()
    answers.hear(datagram)
    assert answers.announced() == []


@given(st.integers(0, len(reply()) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_answer(at, words):
    wire = bytearray(reply())
    wire[at : at + len(words)] = words
    answers = Answers()
    answers.hear(bytes(wire[:at]))
    answers.hear(bytes(wire))
    for found in answers.announced():
        assert found.service in SERVICES


async def test_answers_that_come_back_to_us():
    class Responder(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            asked = {str(one.name) for one in dns.message.from_wire(data).question}
            assert asked == set(SERVICES.values())
            self.transport.sendto(b"noise", address)
            self.transport.sendto(reply(), address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Responder, ("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        async with asyncio.timeout(60):
            answers, faults = await browse(group=("127.0.0.1", port), listen_s=0.3, interfaces=[0])
            while len(answers.announced()) < 2:  # on a loaded machine
                answers, faults = await browse(group=("127.0.0.1", port), listen_s=3.0, interfaces=[0])
    finally:
        transport.close()
    assert (faults, answers.garbled, len(answers.announced())) == ([], 1, 2)


async def test_no_network_at_all_is_said():
    answers, faults = await browse(listen_s=0.0, interfaces=[2**30])
    assert answers.announced() == []
    assert len(faults) == 1


def test_avahi_announces_a_broker(tmp_path):
    """In namespaces of its own: avahi-daemon on one end of a pair of cables, we on the other."""
    assert shutil.which("avahi-daemon"), "apt-get install avahi-daemon"
    inside = [sys.executable, "-m", "tests.agent.discovery.avahi_inside", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "--mount", "--fork", "--kill-child", *inside],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "mqtt://10.91.7.1:1883 by mDNS, as 'Attic broker'", done.stdout + done.stderr


def test_the_question_is_one_small_datagram():
    assert len(question()) < 512
