"""DHCP of a whole agent on loopback, where every address of 127/8 is a board: leases over a kill, alerts over MQTT."""

import signal
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from netboot.dhcp_packet import DhcpPacket, MessageType, encode, parse
from tests.agent.bench import DEADLINE_S, Bench
from tests.free_ports import free_port

PI = "52:54:00:00:00:01"
STRANGER, OTHER = "52:54:00:99:00:01", "52:54:00:99:00:02"
WANTED = "127.0.7.105"


class NetbootBench(Bench):
    """A bench whose agent serves a board network, and a DHCP client on the address `WANTED`."""

    def __init__(self, folder: Path, mqtt, dhcp_port: int) -> None:
        super().__init__(folder, mqtt)
        kernel = folder / "Image"
        kernel.write_bytes(b"kernel")
        text = self.settings.read_text().replace(
            "[boards.pi]\n", '[boards.pi]\naddress = "127.0.7.11"\nprofile = "p"\n'
        )
        self.settings.write_text(
            f'{text}[profiles.p]\narch = "arm64"\nkernel = "{kernel}"\n'
            f'[netboot]\ninterface = "lo"\naddress = "127.0.0.1/8"\nmqtt_for_boards = "127.0.0.1:{mqtt.port}"\n'
            f"dhcp_port = {dhcp_port}\ntftp_port = {free_port()}\nhttp_port = 0\n"
            f'joining = "open"\njoining_profile = "p"\npool = ["127.0.7.100", "127.0.7.110"]\n'
        )
        self.dhcp_port = dhcp_port
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((WANTED, dhcp_port + 1))
        self.sock.settimeout(DEADLINE_S)

    def ask(self, kind: MessageType, mac: str, xid: int, ciaddr: str = "0.0.0.0") -> None:
        packet = DhcpPacket(
            op=1, xid=xid, chaddr=bytes.fromhex(mac.replace(":", "")), ciaddr=IPv4Address(ciaddr),
            options=((53, bytes((kind,))), (60, b"udhcp")),
        )  # fmt: skip
        self.sock.sendto(encode(packet), ("127.0.0.1", self.dhcp_port))

    def renew(self, mac: str, xid: int) -> None:
        """As a client that believes to have `WANTED`: on loopback only such a one can be answered."""
        self.ask(MessageType.REQUEST, mac, xid, WANTED)

    def answer(self) -> DhcpPacket:
        return parse(self.sock.recv(2048))

    def close(self) -> None:
        super().close()
        self.sock.close()


@pytest.fixture
def bench(tmp_path: Path, mqtt, unused_udp_port: int) -> Iterator[NetbootBench]:
    bench = NetbootBench(tmp_path, mqtt, unused_udp_port)
    yield bench
    bench.close()


def test_a_lease_outlives_a_kill(bench: NetbootBench) -> None:
    bench.ready()
    bench.renew(STRANGER, 1)
    ack = bench.answer()
    assert (ack.xid, ack.message_type, str(ack.yiaddr)) == (1, MessageType.ACK, WANTED)
    bench.end(signal.SIGKILL)
    bench.ready()
    bench.renew(OTHER, 2)  # had the agent forgotten the lease, it would give the address to this one,
    bench.renew(STRANGER, 3)  # and refuse it to that
    ack = bench.answer()
    assert (ack.xid, ack.message_type, str(ack.yiaddr)) == (3, MessageType.ACK, WANTED)


def test_a_doubled_mac_address_is_an_alert(bench: NetbootBench) -> None:
    heard = bench.ready()
    for xid in (1, 2, 1):
        bench.ask(MessageType.DISCOVER, PI, xid)
    for xid in (1, 2, 1):
        bench.ask(MessageType.DISCOVER, STRANGER, xid)
    of_board, event, of_agent = heard.wait_all(
        lambda m: m["topic"] == "boardhand/board/pi/alert/duplicate-mac",
        lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["details"].get("name") == "duplicate-mac",
        lambda m: m["topic"] == "boardhand/agent/lab/alert/duplicate-mac",
    )
    assert f"MAC {PI} of board pi" in of_board["payload"]["what"]
    assert "second machine" in of_board["payload"]["do"]
    assert event["payload"]["type"] == "alert"
    assert STRANGER in of_agent["payload"]["what"]
    late = bench.listen("boardhand/board/pi/alert/duplicate-mac", "boardhand/agent/lab/alert/duplicate-mac")
    late.wait_all(
        lambda m: m["topic"].startswith("boardhand/board"), lambda m: m["topic"].startswith("boardhand/agent")
    )
    bench.end(signal.SIGKILL)
    bench.ready()
    # The new life knows nothing of it yet, and takes them away.
    deadline = time.monotonic() + DEADLINE_S
    while len({m["topic"] for m in late.history if not m["payload"]}) < 2:
        assert time.monotonic() < deadline, late.history
        time.sleep(0.05)
    fresh = bench.listen("boardhand/board/pi/alert/#", "boardhand/agent/lab/alert/#")
    assert fresh.history == []
