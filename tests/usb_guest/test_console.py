"""A console whose USB serial converter hangs off its board's own power: the tty goes with the hub's port and comes back
under another number, and who reads it does not notice. The real agent in the guest, a real kernel, udev, and telnet."""

import json
import socket

import pytest

from tests.usb_guest.conftest import BY_ID

BOARD, SERIAL, SPARE = "by-libusb", "BRD0002", "SPARE1"
ALWAYS = {"always-plugged": True}  # nobody is at the other end of a null chardev
LOG, TYPED = "/run/session.log", "/run/session.typed"
# Stays connected, keeps what it reads, and types what is written into a FIFO.
CLIENT = """
import os, select, socket, sys
log, typed = sys.argv[1:]
os.path.exists(typed) or os.mkfifo(typed)
fifo = os.open(typed, os.O_RDWR | os.O_NONBLOCK)
server = socket.create_connection(("127.0.0.1", 7002), 30)
with open(log, "wb", buffering=0) as out:
    while True:
        for ready in select.select([fifo, server], [], [])[0]:
            if ready is fifo:
                server.sendall(os.read(fifo, 4096))
                continue
            data = server.recv(4096)
            if not data:
                sys.exit("the agent ended the session")
            out.write(data)
"""


class Board:
    """The far end of the board's UART."""

    def __init__(self, path):
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(60)
        self.link.connect(str(path))

    def says(self, line):
        self.link.sendall(line + b"\r\n")

    def hears(self, text):
        heard = b""
        while text not in heard:
            heard += self.link.recv(4096)
        return heard


@pytest.fixture
def board(farm):
    found = Board(farm.guest.board_socket(SERIAL))
    yield found
    found.link.close()


@pytest.fixture
def session(farm):
    """A telnet client; what it has read is in LOG."""
    farm.guest.run("rm", "-f", LOG, TYPED)
    running = farm.guest.begin("python3", "-c", CLIENT, LOG, TYPED)
    farm.until("the session", lambda: running.over or farm.exists(LOG))
    assert not running.over, running.result()
    yield running
    if not running.over:
        running.stop()


@pytest.fixture
def take_number(farm):
    """Plugs in another converter: it gets the lowest number that is free."""

    def take():
        farm.guest.qmp("chardev-add", id="spare", backend={"type": "null", "data": {}})
        farm.guest.plug("usb-serial", "spare", bus="xhci.0", port="2.2", chardev="spare", serial=SPARE, **ALWAYS)
        farm.until("the spare converter", lambda: farm.exists(BY_ID.format(serial=SPARE)))
        return farm.tty(SPARE)

    yield take
    if farm.exists(BY_ID.format(serial=SPARE)):
        farm.guest.unplug("spare")
        farm.until("no spare converter", lambda: not farm.exists(BY_ID.format(serial=SPARE)))
        farm.guest.qmp("chardev-remove", id="spare")
    assert farm.power(BOARD, "on")["ok"]
    farm.until("its tty", lambda: farm.exists(f"/dev/boards/{BOARD}-console"))


def read(farm):
    return farm.guest.run("cat", LOG).stdout


def held(farm):
    """The tty of the board that our agent has open."""
    place = farm.guest.run("readlink", "-f", farm.by_path(SERIAL)).stdout.strip()
    listing = farm.guest.run("sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null").stdout
    return place.rpartition("/")[2] if f"-> {place}\n" in listing else None


def test_a_session_goes_on_when_the_tty_went_with_the_ports_power(farm, board, session, take_number):
    before = farm.until("the agent has the tty", lambda: held(farm))
    board.says(b"first life")
    farm.until("the first words", lambda: "first life" in read(farm))

    began = len(farm.guest.hub_trace())
    assert farm.power(BOARD, "off")["ok"]
    assert farm.foreign_status("HUBSER1", 2) == "0000"
    farm.until("no tty", lambda: not farm.exists(f"/dev/{before}"))
    assert not session.over, "the session goes on without a port"
    assert take_number() == before, "its number is another's now"
    assert farm.power(BOARD, "on")["ok"]
    farm.until("its tty", lambda: farm.exists(f"/dev/boards/{BOARD}-console"))
    after = farm.until("the agent has the new tty", lambda: held(farm))
    assert after != before, "another number"
    assert farm.told(began) == ["clear dev 1, port 2", "set dev 1, port 2"]

    def heard_again():
        board.says(b"second life")
        return "second life" in read(farm)

    farm.until("the words after it", heard_again)
    assert read(farm).index("first life") < read(farm).index("second life")
    farm.guest.check("sh", "-c", f"printf 'ls\\r' > {TYPED}")
    board.hears(b"ls\r")
    assert not session.over

    lines = [
        json.loads(line)
        for line in farm.guest.check(*f"boardhand --json console {BOARD} --since 1h".split()).splitlines()
    ]
    told = [line.get("note") or line["line"] for line in lines]
    story = told[told.index("first life") : told.index("second life")]
    assert "power off" in story
    # One going is one note, though the node is looked for again while the kernel and udev take it away.
    ports = [text.partition(":")[0] for text in story if text.startswith("port ")]
    assert ports == ["port away", "port open"] * max(1, len(ports) // 2), story
