"""A DFU flash by our agent and Debian's dfu-util, of a board that speaks DFU 1.1 on a real Linux USB host: whole, cut
halfway and recovered, and the images that must never reach it."""

import base64
import hashlib
import itertools
import json
import struct
import zlib

import pytest

CHIP, STATE, IMAGES = "/run/dfu-chip.bin", "/run/dfu.json", "/run/images"
SERVER = "127.0.0.1"  # the guest resolves no names
SIZE = 60_000
_NUMBERS = itertools.count()
ON_USB = "grep -qsx DFU01 /sys/bus/usb/devices/*/serial"


class Board:
    """The board behind the virtual port. Its chip survives its power."""

    def __init__(self, farm):
        self.farm = farm
        self.running = None

    def plug(self, *more):
        module = ("python3", "-m", "virtual_lab.dfu_port", "--serial", "DFU01", "--state", STATE, "--flash", CHIP)
        self.running = self.farm.guest.begin(*module, *more)
        self.farm.until("the board on USB", lambda: self.running.over or self.on_usb())
        assert not self.running.over, self.running.result()

    def unplug(self):
        self.running.stop(9)
        self.farm.until("the board off USB", lambda: not self.on_usb())

    def on_usb(self):
        return self.farm.guest.run("sh", "-c", ON_USB).code == 0

    def chip(self, size):
        """The checksum of what lies in its memory."""
        return self.farm.guest.check("sh", "-c", f"head -c {size} {CHIP} | sha256sum").split()[0]

    def whole(self):
        return self.farm.state(STATE)["whole"]

    def flash_by_command(self, image):
        done = self.farm.guest.run("boardhand", "--json", "flash", "flashed", image, timeout_s=200)
        *steps, last = [json.loads(line) for line in done.stdout.splitlines()]
        return done, steps, last

    def ask(self, verb, **data):
        """The response to one request. By a small program: starting ours takes the emulated machine longer."""
        request = json.dumps({"transaction": f"dfu-{next(_NUMBERS)}", "data": {"board": "flashed", **data}})
        topics = ("-t", f"boardhand/agent/lab/request/{verb}", "-e", f"boardhand/agent/lab/response/{verb}")
        return json.loads(
            self.farm.guest.check("mosquitto_rr", "-h", SERVER, *topics, "-m", request, "-W", "150", timeout_s=160)
        )

    def alert(self):
        """What stands retained at the MQTT server; waits for it."""
        topic = "boardhand/board/flashed/alert/flash"
        done = self.farm.guest.run("mosquitto_sub", "-h", SERVER, "-t", topic, "-C", "1", "-W", "50")
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)["what"]

    def modes(self):
        return self.ask("modes")["data"]["boards"][0]


def image(farm, name, *, product=0xDB42, tail=b""):
    """An image with a DFU suffix, made anew inside. Returns its path and the checksum of what has to reach the chip."""
    body = (hashlib.sha256(name.encode()).hexdigest() * (SIZE // 64 + 1)).encode()[:SIZE] + tail
    whole = body + struct.pack("<HHHH3sB", 0xFFFF, product, 0x1209, 0x0100, b"UFD", 16)
    data = whole + struct.pack("<I", zlib.crc32(whole) ^ 0xFFFFFFFF)
    path = f"{IMAGES}/{name}"
    farm.guest.check("mkdir", "-p", IMAGES)
    text = base64.encodebytes(data).decode()
    farm.guest.check("sh", "-c", 'base64 -d >"$1"', "sh", path, stdin=text)
    return path, hashlib.sha256(body).hexdigest(), len(body)


@pytest.fixture(scope="module")
def board(_agent):
    _agent.guest.check("modprobe", "vhci_hcd")
    board = Board(_agent)
    board.plug()
    yield board
    if not board.running.over:
        board.unplug()


def test_an_image_is_written_compared_and_the_board_is_back(farm, board):
    path, digest, size = image(farm, "good.dfu")
    begin = len(farm.state("/run/relay.json")["reports"])
    done, steps, last = board.flash_by_command(path)
    assert done.code == 0, (last, done.stderr)
    assert (last["verified"], last["tool"]) == (f"read back, {size} octets are the same", "dfu-util")
    assert (board.chip(size), board.whole()) == (digest, size)
    stages = list(dict.fromkeys(step["stage"] for step in steps))
    assert stages[:5] == ["begun", "check", "mode", "write", "read back"]
    # The strap was on and off again; nothing but it and the board's power was touched.
    told = [report[:4] for report in farm.state("/run/relay.json")["reports"][begin:]]
    assert [report for report in told if report.endswith("03")][:2] == ["ff03", "fd03"]
    assert {report[2:] for report in told} == {"03", "04"}
    state = board.modes()
    # It was off before.
    assert (state["mode"], state["damaged"], state["actuators"]) == ("normal", None, {"power": "off", "strap": "off"})


def test_power_that_goes_halfway_leaves_half_an_image_and_the_next_flash_mends_it(farm, board):
    path, digest, size = image(farm, "second.dfu")
    board.unplug()
    board.plug("--cut-after", "30000")
    said = board.ask("flash", image=path)
    assert (said["ok"], said["error"]["kind"]) == (False, "refused"), said
    assert (
        "the device may hold a part of the image: flash again; the board is in mode normal" in said["error"]["message"]
    )
    written = farm.state(STATE)["written"]
    assert (30_000 <= written < SIZE, board.whole()) == (True, None)
    assert board.chip(written) != board.chip(size) != digest
    assert "second.dfu failed" in board.alert()
    # It comes back in DFU mode, with what was written, and takes the image again.
    board.plug()
    assert board.whole() is None
    said = board.ask("flash", image=path)
    assert said["ok"], said
    assert (board.chip(size), board.whole()) == (digest, size)
    assert board.modes()["damaged"] is None


def test_an_image_for_another_device_never_reaches_the_board(farm, board):
    before = board.chip(SIZE)
    path, *_ = image(farm, "other.dfu", product=0x0001)
    begin = len(farm.state("/run/relay.json")["reports"])
    said = board.ask("flash", image=path)
    assert (said["ok"], said["error"]["kind"]) == (False, "bad-request"), said
    assert "is for the USB device 1209:0001, and this board is 1209:db42" in said["error"]["message"]
    assert farm.state("/run/relay.json")["reports"][begin:] == []
    assert board.chip(SIZE) == before
