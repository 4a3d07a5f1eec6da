"""The whole room on loopback, where boards are addresses of 127/8: files, secrets, events, limits."""

import asyncio
import hmac
import json
import os
import re
import signal
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from netboot.boot_secrets import Verdict
from netboot.dhcp_packet import DhcpPacket, encode
from netboot.errors import NetbootStartError
from netboot.events import DhcpSeen, FileFailed, FileRefused, FileRequested, FileSent
from netboot.http_tokens import url_prefix
from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer

MACS = {"b1": "52:54:00:77:00:01", "b2": "52:54:00:77:00:02"}
ADDRESSES = {"b1": "127.0.7.11", "b2": "127.0.7.12", "stranger": "127.0.7.100", "outsider": "127.0.7.200"}
PXE = {name: f"pxelinux.cfg/01-{mac.replace(':', '-')}" for name, mac in MACS.items()}


class Bench:
    """A server with its events and stored states."""

    def __init__(self, folder, free_port):
        self.folder = folder
        self.events, self.saved = [], []
        self.dhcp_port = free_port
        self.profile = self.make_profile("p")
        self.save = self.saved.append
        self.server = None

    def make_profile(self, name):
        kernel, initrd = self.folder / f"{name}-Image", self.folder / f"{name}-initrd"
        if not kernel.exists():
            kernel.write_bytes(os.urandom(40_000))
            initrd.write_bytes(os.urandom(10_000))
        return BootProfile(name, "arm64", kernel, initrd, None, "console=ttyAMA0")

    async def start(self, state=None):
        config = NetbootConfig(
            agent="desk",
            interface="lo",
            server_address=IPv4Address("127.0.0.1"),
            network=IPv4Network("127.0.0.0/8"),
            pool=(IPv4Address("127.0.7.100"), IPv4Address("127.0.7.110")),
            mqtt_for_boards="10.77.0.1:1883",
            prefix="boardhand",
            joining_profile=self.make_profile("joining"),
            dhcp_port=self.dhcp_port,
            tftp_port=0,
            http_port=0,
        )
        boards = [
            NetbootBoard(name, (MACS[name].upper(),), IPv4Address(ADDRESSES[name]), self.profile) for name in MACS
        ]
        self.server = NetbootServer(
            config, boards, on_event=self.events.append, secrets_state=state, save_secrets=self.save
        )
        await self.server.start()

    async def get(self, who, path, within_s=60.0):
        """curl's exit code and what it got, from the address of `who`."""
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "--interface", ADDRESSES[who], "--path-as-is", "--max-time", str(within_s),
            f"tftp://127.0.0.1:{self.server.tftp_port}/{path}",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode, output

    async def secret(self, who="b1"):
        code, text = await self.get(who, PXE[who])
        assert code == 0
        return re.search(rb"boardhand\.secret=([0-9a-f]{64})", text)[1].decode()

    def register(self, secret, boot_id="boot-1", board="b1", mac=None):
        mac = mac or MACS[board]
        message = f"boardhand-register\n{board}\n{boot_id}\n{mac}".encode()
        proof = hmac.new(secret.encode(), message, "sha256").hexdigest()
        return self.server.verify(board, boot_id, mac, proof, message)

    async def seen(self, kind, **details):
        async with asyncio.timeout(60):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and all(getattr(event, k) == v for k, v in details.items()):
                        return event
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(tmp_path, unused_udp_port):
    bench = Bench(tmp_path, unused_udp_port)
    await bench.start()
    yield bench
    await bench.server.stop()


async def test_a_board_gets_its_files(bench):
    code, script = await bench.get("b1", "boot.scr.uimg")
    assert code == 0
    assert b"pxe get" in script
    code, text = await bench.get("b1", PXE["b1"])
    assert b"append console=ttyAMA0 boardhand.board=b1 boardhand.agent=desk boardhand.mqtt=10.77.0.1:1883" in text
    for name, path, role in (("kernel", bench.profile.kernel, "kernel"), ("initrd", bench.profile.initrd, "initrd")):
        assert await bench.get("b1", name) == (0, path.read_bytes())
        sent = await bench.seen(FileSent, path=name)
        assert (sent.board, sent.client, sent.role) == ("b1", ADDRESSES["b1"], role)
        assert sent.size_bytes == path.stat().st_size
        assert sent.seconds >= 0
    assert (await bench.seen(FileRequested, path=PXE["b1"])).role == "config"
    assert bench.server.stats()["tftp_files_sent"] == 4


@pytest.mark.parametrize(
    ("who", "path", "code"),
    [
        ("b1", PXE["b2"], 69),
        ("b2", PXE["b1"], 69),
        ("b1", "b2/kernel", 69),
        ("b1", "../../etc/passwd", 69),
        ("b1", "%2e%2e/secret", 69),
        ("b1", "/etc/passwd", 68),
        ("b1", "p-Image", 68),
        ("stranger", "kernel", 69),
        ("outsider", PXE["b1"], 69),
    ],
)
async def test_refused_counted_and_told(bench, who, path, code):
    assert (await bench.get(who, path))[0] == code
    event = await bench.seen(FileRefused, client=ADDRESSES[who])
    assert event.missing is (code == 68)
    assert event.board == (who if who in MACS else None)
    assert bench.server.stats()["tftp_missing" if code == 68 else "tftp_refused"] == 1
    assert bench.saved == []


async def test_a_source_is_logged_once(bench, caplog):
    for _ in range(3):
        await bench.get("outsider", "kernel")
    assert len([record for record in caplog.records if ADDRESSES["outsider"] in record.getMessage()]) == 1
    assert bench.server.stats()["tftp_refused"] == 3


async def test_a_link_that_leads_out_is_refused(bench, tmp_path):
    (tmp_path / "p-Image").unlink()
    (tmp_path / "p-Image").symlink_to("/etc/passwd")
    assert (await bench.get("b1", "kernel"))[0] == 69
    assert "link leads out" in (await bench.seen(FileRefused, path="kernel")).reason


async def test_joining(bench):
    bench.server.set_joining(True)
    code, text = await bench.get("stranger", "pxelinux.cfg/01-52-54-00-99-00-01")
    assert code == 0
    assert b"boardhand.agent=desk" in text
    assert b"boardhand.secret" not in text
    assert b"boardhand.board" not in text
    assert await bench.get("stranger", "kernel") == (0, (bench.folder / "joining-Image").read_bytes())
    assert (await bench.get("stranger", PXE["b1"]))[0] == 0  # its own MAC is unknown, and nobody's secret is in there
    assert (await bench.get("outsider", "kernel"))[0] == 69
    bench.server.set_joining(False)
    assert (await bench.get("stranger", "kernel"))[0] == 69


async def test_registration(bench):
    secret = await bench.secret()
    assert await bench.secret() == secret
    assert bench.register("0" * 64) is Verdict.WRONG_PROOF
    assert bench.register(secret, mac="52:54:00:77:00:99") is Verdict.WRONG_MAC
    assert bench.register(secret, mac="nonsense") is Verdict.WRONG_MAC
    assert bench.register(secret, board="b2") is Verdict.NO_SECRET
    assert bench.server.verify("b9", "x", MACS["b1"], "0" * 64, b"") is Verdict.UNKNOWN_BOARD
    assert bench.register(secret) is Verdict.OK
    assert bench.register(secret) is Verdict.AGAIN
    assert bench.register(secret, "boot-2") is Verdict.OTHER_BOOT
    assert await bench.secret() != secret


async def test_new_boot_voids_the_old_command_line(bench):
    secret = await bench.secret()
    bench.server.new_boot("b1")
    assert bench.register(secret) is Verdict.NO_SECRET
    assert await bench.secret() != secret


async def test_a_restart_keeps_the_boot(bench):
    secret = await bench.secret()
    state = json.loads(json.dumps(bench.saved[-1]))
    await bench.server.stop()
    await bench.start(state)
    assert await bench.secret() == secret
    assert bench.register(secret) is Verdict.OK
    await bench.server.stop()
    await bench.start(bench.saved[-1])
    assert bench.register(secret) is Verdict.AGAIN


async def test_the_secret_is_stored_before_it_leaves(bench):
    """A slow store holds back every copy of the file; a store that fails lets none out."""
    await bench.server.stop()
    gate, states = asyncio.Event(), []

    async def slow(state):
        await gate.wait()
        states.append(state)

    bench.save = slow
    await bench.start()
    fetches = [asyncio.create_task(bench.get("b1", PXE["b1"])) for _ in range(3)]
    async with asyncio.timeout(60):
        while not bench.server._secrets._saving.locked():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert not any(fetch.done() for fetch in fetches)
    assert not [event for event in bench.events if isinstance(event, FileRequested)]
    gate.set()
    results = await asyncio.gather(*fetches)
    assert len(set(results)) == 1
    assert states[0]["boards"]["b1"]["pending"].encode() in results[0][1]
    secret = states[0]["boards"]["b1"]["pending"]
    assert bench.register(secret) is Verdict.OK
    await bench.server.stop()
    assert states[-1]["boards"]["b1"]["redeemed"] == secret


async def test_a_store_that_fails_lets_no_secret_out(bench):
    await bench.server.stop()
    broken = [True]

    def save(state):
        if broken:
            raise OSError("disk full")
        bench.saved.append(state)

    bench.save = save
    await bench.start()
    code, text = await bench.get("b1", PXE["b1"])
    assert code != 0
    assert b"secret" not in text
    broken.clear()
    assert (await bench.secret()) == bench.saved[-1]["boards"]["b1"]["pending"]


async def test_transfers_that_break_off_are_told(bench):
    bench.profile.kernel.write_bytes(bytes(30_000_000))
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "--interface",
        ADDRESSES["b1"],
        f"tftp://127.0.0.1:{bench.server.tftp_port}/kernel",
    )
    await bench.seen(FileRequested, path="kernel")
    process.kill()
    await process.wait()
    failed = await bench.seen(FileFailed, path="kernel")
    assert (failed.board, failed.role) == ("b1", "kernel")
    assert not [event for event in bench.events if isinstance(event, FileSent)]


async def test_a_dead_worker_comes_back(bench):
    old = bench.server.tftp_pid
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(60):
        while bench.server.tftp_pid in {None, old}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while (await bench.get("b1", "kernel", 1))[0] != 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert bench.server.stats()["tftp_restarts"] == 1


async def test_an_owner_that_fails_stops_nothing(bench, caplog):
    def fail(event):
        raise RuntimeError("a bug")

    bench.server._owner_on_event = fail
    for _ in range(2):
        assert (await bench.get("b1", "kernel"))[0] == 0
    assert (await bench.get("b1", "nothing"))[0] == 68
    assert "a bug" in caplog.text
    assert bench.server.stats()["tftp_restarts"] == 0


async def test_malformed_dhcp_is_counted_and_logged_once(bench, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (b"", b"nonsense", bytes(300), os.urandom(400)):
            sock.sendto(data, ("127.0.0.1", bench.dhcp_port))
    async with asyncio.timeout(60):
        while bench.server.stats().get("dhcp_malformed") != 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert len([record for record in caplog.records if "malformed" in record.getMessage()]) == 1
    assert bench.server.stats()["dhcp_received"] == 4
    assert "dhcp_answered" not in bench.server.stats()


async def test_dhcp_on_the_wire(bench):
    """A DISCOVER of a known board is answered by broadcast from the server's address; on loopback to the next port."""
    packet = DhcpPacket(op=1, xid=7, chaddr=bytes.fromhex(MACS["b1"].replace(":", "")), options=((53, b"\1"),))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(encode(packet), ("127.0.0.1", bench.dhcp_port))
    event = await bench.seen(DhcpSeen, mac=MACS["b1"])
    assert (event.board, event.address, event.answer) == ("b1", ADDRESSES["b1"], "OFFER")


async def test_start_fails_whole(bench, tmp_path):
    """The DHCP port of a server that already runs is shared on Linux only with SO_REUSEADDR; a bad interface is not."""
    other = Bench(tmp_path, bench.dhcp_port)
    other.server = NetbootServer(
        NetbootConfig(
            agent="desk", interface="bh-none", server_address=IPv4Address("127.0.0.1"),
            network=IPv4Network("127.0.0.0/8"), pool=None, mqtt_for_boards="x:1", prefix="p", joining_profile=None,
            dhcp_port=bench.dhcp_port, tftp_port=0,
        ),
        [], on_event=other.events.append, secrets_state=None, save_secrets=other.save,
    )  # fmt: skip
    with pytest.raises(NetbootStartError, match="bh-none"):
        await other.server.start()
    assert other.server.tftp_pid is None
    await other.server.stop()


def test_boards_that_contradict_each_other(bench):
    twice = NetbootBoard("b1", (MACS["b1"],), IPv4Address("127.0.7.11"), bench.profile)
    with pytest.raises(ValueError, match="b1 stands twice"):
        bench.server.set_boards([twice, twice])
    with pytest.raises(ValueError, match="not an id"):
        NetbootBoard("Bad", (), IPv4Address("127.0.7.11"), bench.profile)
    with pytest.raises(ValueError, match="MAC"):
        NetbootBoard("b1", ("nonsense",), IPv4Address("127.0.7.11"), bench.profile)


async def test_no_secret_in_logs(bench, caplog):
    caplog.set_level("DEBUG")
    secret = await bench.secret()
    bench.register(secret)
    assert secret not in caplog.text
    assert not [event for event in bench.events if secret in repr(event)]
    for pid in (os.getpid(), bench.server.tftp_pid):
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


# --- HTTP: the same decisions ---


async def curl(bench, who, path, *more):
    """Status and body, from the address of `who`."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "--interface", ADDRESSES[who], "--path-as-is", "--max-time", "20", "-w", "%{http_code}", *more,
        f"http://127.0.0.1:{bench.server.http_port}{path}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return int(output[-3:]), output[:-3]


async def test_http_serves_what_tftp_serves(bench):
    status, text = await curl(bench, "b1", f"/{PXE['b1']}")
    assert (status, text) == (200, (await bench.get("b1", PXE["b1"]))[1])
    secret = re.search(rb"boardhand\.secret=([0-9a-f]{64})", text)[1].decode()
    assert await curl(bench, "b1", "/kernel") == (200, bench.profile.kernel.read_bytes())
    await bench.seen(FileSent, board="b1", role="kernel", path="/kernel")
    assert (await curl(bench, "b1", "/kernel", "-I"))[0] == 200
    assert await curl(bench, "b1", f"{url_prefix(secret)}kernel") == (200, bench.profile.kernel.read_bytes())
    status, _ = await curl(bench, "b2", f"{url_prefix(secret)}kernel")
    assert status == 403
    await bench.seen(FileRefused, board="b2", path="/kernel")
    assert (await curl(bench, "b1", f"/{PXE['b2']}"))[0] == 403
    assert (await curl(bench, "b1", "/nothing"))[0] == 404
    stats = bench.server.stats()
    assert (stats["http_files_sent"], stats["http_refused"], stats["http_missing"]) == (3, 2, 1)
    async with asyncio.timeout(60):  # the worker, a process of its own, tells the end of a transfer when it gets to run
        while bench.server.stats()["tftp_asked"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    bench.server.new_boot("b1")
    assert (await curl(bench, "b1", f"{url_prefix(secret)}kernel"))[0] == 403


async def test_http_knows_no_strangers(bench, caplog):
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "--interface", "127.0.5.5", f"http://127.0.0.1:{bench.server.http_port}/kernel",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert (await process.communicate())[0] == b"no board has this address\n"
    assert "HTTP: refused '/kernel' to 127.0.5.5" in caplog.text
