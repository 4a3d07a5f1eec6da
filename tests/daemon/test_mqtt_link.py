"""The link against real Mosquittos: plain, with a password, with TLS and client certificates, killed and back."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from daemon.mqtt_link import Message, MqttLink, NotConnectedError, PublishRefusedError, Will
from daemon.mqtt_settings import MqttSettings

DEADLINE_S = 60.0


class Owner:
    """Somebody who has a link and remembers what happened."""

    def __init__(self, settings: MqttSettings, *, will: Will | None = None, subscriptions: tuple[str, ...] = ("t/#",)):
        self.got: asyncio.Queue[Message] = asyncio.Queue()
        self.connects: asyncio.Queue[None] = asyncio.Queue()
        self.reasons: asyncio.Queue[str] = asyncio.Queue()
        self.link = MqttLink(
            settings,
            "test-owner",
            will=will,
            subscriptions=subscriptions,
            on_message=self.got.put_nowait,
            on_connect=lambda: self.connects.put(None),
            on_disconnect=self.reasons.put_nowait,
        )

    async def __aenter__(self) -> "Owner":
        await self.link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.stop()

    async def message(self) -> Message:
        return await asyncio.wait_for(self.got.get(), DEADLINE_S)

    async def connected(self) -> None:
        await asyncio.wait_for(self.connects.get(), DEADLINE_S)


async def test_publish_returns_when_the_server_has_it(mqtt) -> None:
    async with Owner(MqttSettings(url=mqtt.url)) as owner:
        await owner.connected()
        await owner.link.publish("t/a", b"\x00binary", retain=True)
        assert await owner.message() == Message("t/a", b"\x00binary", retain=False)
    seen = subprocess.run(
        ["mosquitto_sub", "-p", str(mqtt.port), "-t", "t/a", "-C", "1", "-W", "5"], capture_output=True, check=True
    )
    assert seen.stdout == b"\x00binary\n"


async def test_without_a_server_nothing_is_queued_behind_our_back(mosquitto_server) -> None:
    server = mosquitto_server()
    server.stop()
    async with Owner(MqttSettings(url=server.url)) as owner:
        assert "refused" in (await asyncio.wait_for(owner.reasons.get(), DEADLINE_S)).lower()
        with pytest.raises(NotConnectedError, match="no connection"):
            await owner.link.publish("t/a", b"must not be sent")
        server.start()
        await owner.connected()
        await owner.link.publish("t/a", b"first")
        assert (await owner.message()).payload == b"first"


async def test_a_killed_server_is_found_again(mqtt) -> None:
    async with Owner(MqttSettings(url=mqtt.url)) as owner:
        await owner.connected()
        mqtt.kill()
        await asyncio.wait_for(owner.reasons.get(), DEADLINE_S)
        assert not owner.link.connected
        mqtt.start()
        await owner.connected()
        await owner.link.publish("t/b", b"again")
        assert (await owner.message()).payload == b"again"


async def test_the_will_is_said_when_we_vanish_and_not_when_we_stop(mqtt) -> None:
    will = Will("t/state", b"lost")
    async with Owner(MqttSettings(url=mqtt.url)) as watcher:
        await watcher.connected()
        stopper = Owner(MqttSettings(url=mqtt.url), will=will, subscriptions=())
        stopper.link._client_id = "stopper"
        async with stopper:
            await stopper.connected()
            await stopper.link.stop([Message("t/state", b"offline", retain=True)])
        assert (await watcher.message()).payload == b"offline"
        vanisher = Owner(MqttSettings(url=mqtt.url), will=will, subscriptions=())
        vanisher.link._client_id = "vanisher"
        async with vanisher:
            await vanisher.connected()
            socket = vanisher.link._client.socket()
            socket.shutdown(2)
            assert (await watcher.message()).payload == b"lost"


async def test_a_stop_at_any_moment_ends(mqtt) -> None:
    for step in range(60):
        owner = Owner(MqttSettings(url=mqtt.url))
        await owner.link.start()
        await asyncio.sleep(step / 2000)
        async with asyncio.timeout(DEADLINE_S):
            await owner.link.stop([Message("t/last", b"words", retain=False)])


async def test_a_fault_in_our_own_handler_costs_one_message(mqtt) -> None:
    async with Owner(MqttSettings(url=mqtt.url)) as owner:
        await owner.connected()
        good = owner.link._on_message

        def bad(message: Message) -> None:
            owner.link._on_message = good
            raise ZeroDivisionError

        owner.link._on_message = bad
        await owner.link.publish("t/a", b"1")
        await owner.link.publish("t/a", b"2")
        assert (await owner.message()).payload == b"2"


async def test_an_acl_that_drops_us_is_an_error(mosquitto_server, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite t/#\n")
    acl.chmod(0o644)
    server = mosquitto_server(extra=f"allow_anonymous true\nacl_file {acl}\n")
    async with Owner(MqttSettings(url=server.url)) as owner:
        await owner.connected()
        with pytest.raises(PublishRefusedError, match="ACL"):
            await owner.link.publish("forbidden/a", b"x")
        await owner.link.publish("t/a", b"still here")
        assert (await owner.message()).payload == b"still here"


async def test_user_and_password_come_from_a_file(mosquitto_server, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "ann", "s3cret"], check=True)
    passwords.chmod(0o644)
    server = mosquitto_server(extra=f"allow_anonymous false\npassword_file {passwords}\n")
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    async with Owner(MqttSettings(url=server.url, username="ann", password_file=secret)) as owner:
        await owner.connected()
    secret.write_text("wrong\n")
    async with Owner(MqttSettings(url=server.url, username="ann", password_file=secret)) as owner:
        reason = await asyncio.wait_for(owner.reasons.get(), DEADLINE_S)
        assert "uthorized" in reason
        assert "wrong" not in reason


async def test_tls_with_a_client_certificate(mosquitto_server: Callable, certificates) -> None:
    server = mosquitto_server(
        extra=f"cafile {certificates.ca}\ncertfile {certificates.server_cert}\nkeyfile {certificates.server_key}\n"
        "require_certificate true\nuse_identity_as_username true\n"
    )
    url = f"mqtts://127.0.0.1:{server.port}"
    settings = MqttSettings(
        url=url,
        ca_file=certificates.ca,
        client_cert_file=certificates.client_cert,
        client_key_file=certificates.client_key,
    )
    async with Owner(settings) as owner:
        await owner.connected()
        await owner.link.publish("t/a", b"in the dark")
        assert (await owner.message()).payload == b"in the dark"
    async with Owner(MqttSettings(url=url, ca_file=certificates.ca)) as owner:
        await asyncio.wait_for(owner.reasons.get(), DEADLINE_S)
        assert owner.connects.empty()
    async with Owner(MqttSettings(url=url)) as owner:
        assert "certificate" in (await asyncio.wait_for(owner.reasons.get(), DEADLINE_S)).lower()


def test_settings_that_contradict_themselves(tmp_path: Path) -> None:
    for bad in (
        {"url": "mqtt://user:pw@host"},
        {"url": "mqtt://host:99999"},
        {"url": "host:1883"},
        {"client_cert_file": tmp_path},
        {"ca_file": tmp_path / "none", "url": "mqtts://h"},
        {"url": "mqtt://h", "ca_file": __file__},
        {"prefix": "a/#"},
        {"keepalive_s": 0},
    ):
        with pytest.raises(ValidationError):
            MqttSettings(**bad)
