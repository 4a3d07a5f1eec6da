"""The MQTT server found by SRV: the order by RFC 2782, and a real Mosquitto found through a real Knot."""

import asyncio
import collections
import random
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from daemon.mqtt_discovery import DiscoveryError, Endpoint, SrvLookup, SrvRecord, in_order
from daemon.mqtt_link import MqttLink
from daemon.mqtt_settings import MqttSettings
from tests.free_ports import free_port
from tests.netboot.knot_server import Knot

DEADLINE_S = 60.0
RECORDS = st.lists(
    st.builds(SrvRecord, st.integers(0, 3), st.integers(0, 65535), st.integers(1, 65535), st.sampled_from(["a", "b"])),
    max_size=12,
)
ZONES = {
    # name of the domain -> its records beside SOA and NS
    "both.test": "_secure-mqtt._tcp SRV 5 0 8883 mqtt\n_mqtt._tcp SRV 0 0 1883 mqtt\n",
    "plain.test": "_mqtt._tcp SRV 10 0 1883 spare\n_mqtt._tcp SRV 0 0 1884 mqtt.elsewhere.test.\n",
    "none.test": "",
    "never.test": "_secure-mqtt._tcp SRV 0 0 0 .\n_mqtt._tcp SRV 0 0 0 .\n",
    "insecure.test": "_secure-mqtt._tcp SRV 0 0 0 .\n_mqtt._tcp SRV 0 0 1883 mqtt\n",
    "away.test": "_secure-mqtt._tcp SRV 0 0 8883 mqtt.elsewhere.test.\n_mqtt._tcp SRV 0 0 1883 mqtt\n",
    "localhost": "",
}


@pytest.fixture(scope="module")
def knot(tmp_path_factory):
    knot = Knot(tmp_path_factory.mktemp("knot"), ZONES)
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture
def lookup(knot):
    return SrvLookup(["127.0.0.1"], port=knot.port)


@given(RECORDS, st.randoms(use_true_random=False))
def test_every_target_is_tried_once_and_by_priority(records, chance):
    ordered = in_order(records, lambda n: chance.randint(0, n))
    assert collections.Counter(ordered) == collections.Counter(records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)


@given(RECORDS.filter(lambda records: len({record.priority for record in records}) == 1))
def test_the_running_sum_decides_as_in_rfc_2782(records):
    """0 drawn takes a weight of 0 where there is one; the whole sum drawn takes the last."""
    low, high = in_order(records, lambda _n: 0), in_order(records, lambda n: n)
    assert low[0].weight == 0 or all(record.weight for record in records)
    assert high[0].weight > 0 or not any(record.weight for record in records)


def test_weights_are_shares():
    records = [SrvRecord(0, weight, 1883, str(weight)) for weight in (0, 10, 30, 60)]
    chance = random.Random(7)
    first = collections.Counter(in_order(records, lambda n: chance.randint(0, n))[0].weight for _ in range(20_000))
    for weight in (10, 30, 60):
        assert first[weight] / 20_000 == pytest.approx(weight / 100, abs=0.02)
    assert 0 < first[0] / 20_000 < 0.02  # 1 of 101


def test_tls_is_preferred(lookup):
    assert lookup.endpoints("both.test", tls_only=False) == [Endpoint("mqtt.both.test", 8883, tls=True)]
    assert lookup.endpoints("both.test", tls_only=True) == [Endpoint("mqtt.both.test", 8883, tls=True)]
    assert lookup.endpoints("Both.Test", tls_only=False) == [Endpoint("mqtt.both.test", 8883, tls=True)]


def test_plain_only_where_dns_says_that_there_is_no_tls(lookup):
    found = [Endpoint("mqtt.elsewhere.test", 1884, tls=False), Endpoint("spare.plain.test", 1883, tls=False)]
    assert lookup.endpoints("plain.test", tls_only=False) == found
    assert lookup.endpoints("insecure.test", tls_only=False) == [Endpoint("mqtt.insecure.test", 1883, tls=False)]
    with pytest.raises(DiscoveryError, match="mqtts://HOST"):
        lookup.endpoints("plain.test", tls_only=True)


@pytest.mark.parametrize("domain", ["none.test", "never.test"])
def test_no_server_is_said_so(lookup, domain):
    with pytest.raises(DiscoveryError, match="put an SRV record there"):
        lookup.endpoints(domain, tls_only=False)


def test_dns_cannot_lead_tls_to_somebody_elses_server(lookup):
    with pytest.raises(DiscoveryError, match=r"leads out of away\.test"):
        lookup.endpoints("away.test", tls_only=False)


def test_an_error_is_no_answer(lookup):
    with pytest.raises(DiscoveryError, match="gives no answer"):
        lookup.endpoints("refused.test", tls_only=False)  # knot refuses what it does not have
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        deaf = SrvLookup(["127.0.0.1"], port=silent.getsockname()[1], timeout_s=0.3)
        with pytest.raises(DiscoveryError, match=r"within 0\.3 s"):
            deaf.endpoints("plain.test", tls_only=False)


class Owner:
    """Somebody with a link that is found by DNS."""

    def __init__(self, settings, lookup):
        self.connects, self.reasons = asyncio.Queue(), asyncio.Queue()
        self.link = MqttLink(
            settings,
            "found-by-dns",
            will=None,
            subscriptions=("t/#",),
            on_message=lambda _message: None,
            on_connect=lambda: self.connects.put(None),
            on_disconnect=self.reasons.put_nowait,
            lookup=lookup,
        )

    async def __aenter__(self):
        await self.link.start()
        return self

    async def __aexit__(self, *_):
        await self.link.stop()

    async def connected(self):
        await asyncio.wait_for(self.connects.get(), DEADLINE_S)

    async def reason(self):
        return await asyncio.wait_for(self.reasons.get(), DEADLINE_S)


@pytest.fixture
def localhost(knot):
    """The domain `localhost`, whose servers a test names; empty again afterwards."""
    owners = ("_mqtt._tcp.localhost.", "_secure-mqtt._tcp.localhost.")

    def name(service, *targets):
        lines = [f"add {service}.localhost. 1 SRV {target}" for target in targets]
        knot.update("localhost", f"del {service}.localhost. SRV", *lines)

    yield name
    for owner in owners:
        knot.update("localhost", f"del {owner} SRV")


async def test_the_next_target_is_tried_and_dns_asked_again(mosquitto_server, lookup, localhost):
    first, second = mosquitto_server(), mosquitto_server()
    closed = free_port()
    localhost("_mqtt._tcp", f"0 0 {closed} localhost.", f"1 0 {first.port} localhost.")
    async with Owner(MqttSettings(url="mqtt+srv://localhost"), lookup) as owner:
        await owner.connected()
        assert owner.reasons.empty()  # the closed one costs no pause
        await owner.link.publish("t/a", b"1")
        localhost("_mqtt._tcp", f"0 0 {second.port} localhost.")
        first.kill()
        await owner.reason()
        await owner.connected()
        await owner.link.publish("t/a", b"2")
        localhost("_mqtt._tcp")
        second.kill()
        assert await owner.reason() == "connection lost"
        assert "put an SRV record there" in await owner.reason()
        first.start()
        localhost("_mqtt._tcp", f"0 0 {closed} localhost.", f"0 0 {first.port} localhost.")
        await owner.connected()


async def test_a_server_that_refuses_us_is_not_the_last_word(mosquitto_server, lookup, localhost, tmp_path: Path):
    nobody = tmp_path / "nobody"
    nobody.write_text("")
    nobody.chmod(0o644)
    closed = mosquitto_server(extra=f"allow_anonymous false\npassword_file {nobody}\n")
    opened = mosquitto_server()
    localhost("_mqtt._tcp", f"0 0 {closed.port} localhost.", f"1 0 {opened.port} localhost.")
    async with Owner(MqttSettings(url="mqtt+srv://localhost"), lookup) as owner:
        await owner.connected()
        await owner.link.publish("t/a", b"1")


async def test_tls_is_checked_for_the_name_that_dns_gave(mosquitto_server, lookup, localhost, certificates):
    """The certificate of the test is for 127.0.0.1 alone, so the name `localhost` must not pass."""
    server = mosquitto_server(
        extra=f"allow_anonymous true\ncafile {certificates.ca}\ncertfile {certificates.server_cert}\n"
        f"keyfile {certificates.server_key}\n"
    )
    localhost("_secure-mqtt._tcp", f"0 0 {server.port} localhost.")
    settings = MqttSettings(url="mqtts+srv://localhost", ca_file=certificates.ca)
    async with Owner(settings, lookup) as owner:
        assert "not valid for 'localhost'" in await owner.reason()
        assert owner.connects.empty()


async def test_tls_by_srv(mosquitto_server, lookup, localhost, local_certificate):
    ca, cert, key = local_certificate
    server = mosquitto_server(extra=f"allow_anonymous true\ncertfile {cert}\nkeyfile {key}\n")
    plain = mosquitto_server()
    localhost("_secure-mqtt._tcp", f"0 0 {server.port} localhost.")
    localhost("_mqtt._tcp", f"0 0 {plain.port} localhost.")
    async with Owner(MqttSettings(url="mqtts+srv://localhost", ca_file=ca), lookup) as owner:
        await owner.connected()
        await owner.link.publish("t/a", b"1")


@pytest.fixture
def local_certificate(tmp_path):
    """A self-signed certificate for `localhost`: its own authority."""
    cert, key = tmp_path / "localhost.crt", tmp_path / "localhost.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, cert, key


async def test_a_silent_dns_server_does_not_hold_the_loop():
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        deaf = SrvLookup(["127.0.0.1"], port=silent.getsockname()[1], timeout_s=2.0)
        async with Owner(MqttSettings(url="mqtt+srv://localhost"), deaf) as owner:
            told = asyncio.ensure_future(owner.reason())
            ticks = 0
            while not told.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert "does not answer" in told.result()
            assert ticks > 5, "200 of them here, when the machine lets us run all the time"


def test_settings_by_srv(tmp_path):
    for url, by_srv, tls in (
        ("mqtt+srv://Lab.Example.org.", True, False),
        ("mqtts+srv://lab.example.org/", True, True),
        ("mqtts://lab.example.org", False, True),
    ):
        settings = MqttSettings(url=url)
        assert (settings.host, settings.by_srv, settings.tls) == ("lab.example.org", by_srv, tls)
    for bad in (
        {"url": "mqtt+srv://lab.example.org:1883"},
        {"url": "mqtt+srv://"},
        {"url": "mqtt+srv://a..b"},
        {"url": "mqtt+srv://[::1]"},
        {"url": "mqtt+srv://ann@lab.example.org"},
        {"url": "mqtt+srv://lab.example.org/x"},
        {"url": "mqtt+srv://lab.example.org", "ca_file": Path(__file__)},
        {"url": "srv://lab.example.org"},
    ):
        with pytest.raises(ValidationError):
            MqttSettings(**bad)
