"""MqttConnection against a real mosquitto, mosquitto's own clients, and servers that misbehave."""

import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from board.client import MqttConnection, MqttError
from tests.free_ports import free_port

PATIENCE_S = 60.0


@pytest.fixture
def link(server):
    made = MqttConnection("127.0.0.1", server.port, "one", timeout_s=PATIENCE_S)
    made.connect()
    yield made
    made.close()


class Scripted:
    """A server that says what it is told to, and then nothing."""

    def __init__(self, *answers: bytes, hang_up: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answers, self._hang_up = answers, hang_up
        self.heard = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._listener, self._listener.accept()[0] as client:
            client.settimeout(PATIENCE_S)
            for answer in self._answers:
                self.heard += client.recv(65536)
                client.sendall(answer)
            while not self._hang_up and (data := client.recv(65536)):
                self.heard += data

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


ACCEPTED = b"\x20\x02\x00\x00"


def test_messages_to_and_from_mosquittos_own_clients(link, server):
    link.subscribe("to/#", "other")
    address = ["-h", "127.0.0.1", "-p", str(server.port)]
    payload = os.urandom(100_000)
    subprocess.run(
        ["mosquitto_pub", *address, "-q", "1", "-t", "to/me", "-s"], input=payload, check=True, timeout=PATIENCE_S
    )
    message = link.receive(PATIENCE_S)
    assert (message.topic, message.payload, message.retain) == ("to/me", payload, False)
    command = ["mosquitto_sub", *address, "-t", "from/me", "-C", "1", "-W", "10"]
    link.publish("from/me", b"kept", retain=True)
    assert subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE_S).stdout == b"kept\n"


def test_a_retained_message_says_so(link):
    link.publish("a", b"1", retain=True)
    link.subscribe("a")
    assert link.receive(PATIENCE_S).retain is True
    link.publish("a", b"2")
    assert link.receive(PATIENCE_S).retain is False


def test_messages_that_come_while_an_acknowledgement_is_awaited_are_kept(link):
    link.subscribe("n/#")
    for number in range(300):
        link.publish(f"n/{number}", b"x", wait=number % 2 == 0)
    assert [link.receive(PATIENCE_S).topic for _ in range(300)] == [f"n/{number}" for number in range(300)]
    assert link.receive(0) is None


def test_receive_gives_up_in_time(link):
    began = time.monotonic()
    assert link.receive(0.3) is None
    assert 0.25 < time.monotonic() - began < PATIENCE_S
    assert link.receive(0) is None


def test_it_can_be_selected(link, server):
    link.subscribe("x")
    assert not select.select([link], [], [], 0)[0]
    with MqttConnection("127.0.0.1", server.port, "two") as other:
        other.publish("x", b"", qos=0)
    assert select.select([link], [], [], PATIENCE_S)[0]
    assert link.receive(0).payload == b""


def test_the_will_is_sent_on_abort_and_on_an_exception_only(link, server):
    link.subscribe("will/#")

    def make(name):
        return MqttConnection("127.0.0.1", server.port, name, will=(f"will/{name}", b"dead"))

    with make("clean") as clean:
        clean.subscribe("flood")
        for _ in range(50):  # unread input, which must not turn the goodbye into a reset
            clean.publish("flood", b"x" * 1000, qos=0)
    aborted = make("aborted")
    aborted.connect()
    aborted.abort()
    assert link.receive(PATIENCE_S).topic == "will/aborted"
    with pytest.raises(KeyError), make("raised"):
        raise KeyError
    assert link.receive(PATIENCE_S).topic == "will/raised"
    assert link.receive(0.3) is None


def test_pings_keep_a_quiet_connection_alive(server, link):
    link.subscribe("will")
    with MqttConnection("127.0.0.1", server.port, "quiet", keepalive_s=4, will=("will", b"")) as quiet:
        assert quiet.receive(8) is None  # the server would end it after 6
        assert link.receive(0) is None


def test_a_frozen_server_is_noticed(server):
    link = MqttConnection("127.0.0.1", server.port, "one", keepalive_s=1, timeout_s=2)
    link.connect()
    server.freeze()
    try:
        with pytest.raises(MqttError, match="ping"):
            link.receive(PATIENCE_S)
        with pytest.raises(MqttError, match="no connection"):
            link.receive(0)
    finally:
        server.thaw()


def test_a_publish_to_a_frozen_server_fails_in_time(server):
    link = MqttConnection("127.0.0.1", server.port, "one", timeout_s=2)
    link.connect()
    server.freeze()
    try:
        with pytest.raises(OSError, match="did not answer"):
            link.publish("a", b"")
    finally:
        server.thaw()


def test_a_server_that_goes_away_is_an_error(server):
    link = MqttConnection("127.0.0.1", server.port, "one")
    link.connect()
    server.kill()
    with pytest.raises((MqttError, OSError)):
        link.receive(PATIENCE_S)
    link.close()
    with pytest.raises(ConnectionRefusedError):
        link.connect()


@pytest.mark.parametrize(("code", "reason"), [(1, "3.1.1"), (2, "client id"), (3, "unavailable"), (4, "password"),
                                              (5, "authorised"), (77, "77")])  # fmt: skip
def test_a_refusal_says_why(code, reason):
    peer = Scripted(b"\x20\x02\x00" + bytes([code]))
    with pytest.raises(MqttError, match=reason):
        MqttConnection("127.0.0.1", peer.port, "x").connect()
    peer.join()


def test_a_refused_subscription_names_the_topic():
    peer = Scripted(ACCEPTED, b"\x90\x04\x00\x01\x01\x80")
    with pytest.raises(MqttError, match="to b"), MqttConnection("127.0.0.1", peer.port, "x") as link:
        link.subscribe("a", "b")
    peer.join()


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x09\x00", b"\xd0\x00\x20\x02"])
def test_nonsense_instead_of_an_answer(nonsense):
    peer = Scripted(nonsense, hang_up=True)
    with pytest.raises((MqttError, OSError)):
        MqttConnection("127.0.0.1", peer.port, "x", timeout_s=2).connect()
    peer.join()


def test_a_silent_server_is_given_up():
    peer = Scripted()
    with pytest.raises(OSError, match=r"did not answer within 0\.3 s"):
        MqttConnection("127.0.0.1", peer.port, "x", timeout_s=0.3).connect()
    peer.join()


def test_the_password_is_sent_and_not_shown(tmp_path):
    peer = Scripted(b"\x20\x02\x00\x04")
    with pytest.raises(MqttError) as caught:
        MqttConnection("127.0.0.1", peer.port, "x", username="u", password="hunter2").connect()
    peer.join()
    assert b"hunter2" in peer.heard and "hunter2" not in str(caught.value)


def test_tls(tmp_path):
    """mosquitto with a certificate of our own making."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "crt", *subject]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    port = free_port()
    (tmp_path / "conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\ncertfile {tmp_path}/crt\nkeyfile {tmp_path}/key\nuser root\n"
    )
    child = subprocess.Popen(["mosquitto", "-c", str(tmp_path / "conf")], stderr=subprocess.DEVNULL)
    try:
        context = ssl.create_default_context(cafile=tmp_path / "crt")
        link = MqttConnection("127.0.0.1", port, "tls", tls=context)
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                link.connect()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
                time.sleep(0.02)
        link.subscribe("t")
        link.publish("t", b"z" * 90_000)
        link.publish("t", b"last")
        assert [len(link.receive(PATIENCE_S).payload), link.receive(PATIENCE_S).payload] == [90_000, b"last"]
        link.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            MqttConnection("127.0.0.1", port, "tls", tls=ssl.create_default_context()).connect()
    finally:
        child.kill()
        child.wait()


def test_the_import_is_cheap():
    """The command line uses this module where 30 ms are all there is: nothing costly at the top."""
    code = "import sys; import board.client; print(*sys.modules)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-S", "-c", code]  # -S: .pth files import what they like
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=env, timeout=PATIENCE_S)
    costly = {"asyncio", "ssl", "typing", "json", "hmac", "hashlib", "subprocess", "threading", "argparse", "inspect"}
    assert not costly & set(out.stdout.split())
