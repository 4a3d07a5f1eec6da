"""By HTTP no board reads another's tree: not from its own address, not with the other's token, not by any trick."""

import asyncio
import hashlib
import os
import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from netboot.events import FileRefused
from netboot.http_tokens import url_prefix, url_token
from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer

MACS = {"b1": "52:54:00:77:00:01", "b2": "52:54:00:77:00:02"}
ADDRESSES = {"b1": "127.0.8.11", "b2": "127.0.8.12", "joining": "127.0.8.100", "stranger": "127.0.9.9"}
OF_B1 = [
    "/b1/kernel",
    "/B1/kernel",
    "//b1//kernel",
    "/x/b1/kernel",
    "/52-54-00-77-00-01/kernel",
    "/pxelinux.cfg/01-52-54-00-77-00-01",
    "/grub.cfg-01-52-54-00-77-00-01",
    "/pxelinux.cfg/7F00080B",
    "/%62%31/kernel",
    "/b1%2fkernel",
    "/b2/../b1/kernel",
    "/x%5cb1%5ckernel",
]
"""Names of the first board's files, as another might try them."""


class Farm:
    """Two boards with kernels of their own."""

    def __init__(self, folder):
        self.kernels = {name: os.urandom(5000) for name in (*MACS, "joining")}
        profiles = {}
        for name, data in self.kernels.items():
            (folder / name).write_bytes(data)
            profiles[name] = BootProfile(name, "arm64", folder / name, None, None, f"profile={name}")
        self.events = []
        self.server = NetbootServer(
            NetbootConfig(
                agent="desk",
                interface="lo",
                server_address=IPv4Address("127.0.0.1"),
                network=IPv4Network("127.0.0.0/8"),
                pool=(IPv4Address("127.0.8.100"), IPv4Address("127.0.8.110")),
                mqtt_for_boards="10.77.0.1:1883",
                prefix="boardhand",
                joining_profile=profiles["joining"],
                dhcp_port=0,
                tftp_port=0,
                http_port=0,
            ),
            [NetbootBoard(name, (MACS[name],), IPv4Address(ADDRESSES[name]), profiles[name]) for name in MACS],
            on_event=self.events.append,
            secrets_state=None,
            save_secrets=lambda _: None,
        )
        self.server.set_joining(True)

    async def ask(self, who, path, *headers, method="GET"):
        """Status and body."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.http_port, local_addr=(ADDRESSES[who], 0)
        )
        writer.write(
            "\r\n".join([f"{method} {path} HTTP/1.1", "Host: b", "Connection: close", *headers, "", ""]).encode()
        )
        async with asyncio.timeout(60):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), head, body

    async def secret(self, who):
        _, _, text = await self.ask(who, "/pxelinux.cfg/default")
        return re.search(rb"boardhand\.secret=(\S+)", text)[1].decode()


@pytest.fixture
async def farm(tmp_path):
    made = Farm(tmp_path)
    await made.server.start()
    yield made
    await made.server.stop()


@pytest.mark.parametrize("path", OF_B1)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_another_s_names_are_refused(farm, path, method):
    own_secret = await farm.secret("b2")
    for before in ("", url_prefix(own_secret).rstrip("/")):
        status, head, body = await farm.ask("b2", before + path, method=method)
        assert status == 403, head
        assert farm.kernels["b1"] not in body
        assert b"etag" not in head.lower()


@pytest.mark.parametrize("who", ["b2", "joining", "stranger"])
async def test_another_s_token_opens_nothing(farm, who):
    token = url_token(await farm.secret("b1"))
    farm.events.clear()
    for path in (
        f"/boot_{token}/kernel",
        f"/%62oot_{token}/kernel",
        f"//boot_{token}/kernel",
        f"/boot_{token.upper()}/kernel",
    ):
        status, _, body = await farm.ask(who, path)
        assert (status, body) == (403, b"the URL is another boot's\n"), path
    assert (await farm.ask("b1", f"/boot_{token}/kernel"))[2] == farm.kernels["b1"]
    assert [event.path for event in farm.events if isinstance(event, FileRefused)] == [
        "/kernel",
        "/kernel",
        "/kernel",
        "/kernel",
    ]
    assert token not in repr(farm.events)


async def test_each_address_gets_its_own_whatever_the_client_says_it_is(farm):
    claims = [f"{name}: {ADDRESSES['b1']}" for name in ("X-Forwarded-For", "X-Real-IP", "Client-IP", "Via")]
    claims += [f"Forwarded: for={ADDRESSES['b1']}", f"X-MAC: {MACS['b1']}"]
    for who in ("b2", "joining"):
        status, _, body = await farm.ask(who, "/kernel", *claims)
        assert (status, body) == (200, farm.kernels[who])
        status, _, body = await farm.ask(who, f"http://{ADDRESSES['b1']}/kernel", *claims)
        assert body == farm.kernels[who]
    status, _, body = await farm.ask("stranger", "/kernel", *claims)
    assert (status, body) == (403, b"no board has this address\n")


async def test_secrets_differ_and_are_told_to_their_board_alone(farm):
    first, second = await farm.secret("b1"), await farm.secret("b2")
    assert first != second
    status, _, body = await farm.ask("joining", "/pxelinux.cfg/default")
    assert status == 200
    assert b"boardhand.secret" not in body
    # The validator of the first board's file tells the second nothing: it is asked for its own.
    _, head, _ = await farm.ask("b1", "/pxelinux.cfg/default")
    etag = re.search(rb"(?i)etag: (\S+)", head)[1].decode()
    status, _, body = await farm.ask("b2", "/pxelinux.cfg/default", f"If-None-Match: {etag}")
    assert status == 200
    assert second.encode() in body
    status, _, body = await farm.ask("b2", "/kernel", "Range: bytes=0-0", f"If-Range: {etag}")
    assert body == farm.kernels["b2"]


async def test_a_token_is_good_for_its_boot_alone(farm):
    prefix = url_prefix(await farm.secret("b1"))
    assert (await farm.ask("b1", f"{prefix}kernel"))[0] == 200
    farm.server.new_boot("b1")
    assert (await farm.ask("b1", f"{prefix}kernel"))[0] == 403
    prefix = url_prefix(await farm.secret("b1"))
    assert (await farm.ask("b1", f"{prefix}kernel"))[0] == 200


async def test_a_token_of_nobody_is_refused_like_another_s(farm):
    for guess in ("0" * 32, "a", "f" * 4000, hashlib.sha256(b"").hexdigest()[:32]):
        for who in ("b1", "b2", "stranger"):
            assert (await farm.ask(who, f"/boot_{guess}/kernel"))[0] == 403
