"""Presence by real USB devices: what the kernel tells of them when a hub's port loses its power and gets it back is the
event of the board that hangs there, and its reason. Nothing else feeds it: no client, no boot."""

import json

import pytest

EVENTS = "/run/presence.events"
# All that the agent says of events and states, from the moment at which the file is there.
LISTENER = """
import json, sys
from board.client import MqttConnection
with MqttConnection("127.0.0.1", 1883, "presence-test") as link, open(sys.argv[1] + ".begun", "w", buffering=1) as out:
    link.subscribe("boardhand/event/+")
    __import__("os").rename(out.name, sys.argv[1])
    while True:
        message = link.receive(3600)
        if message is not None:
            out.write(json.dumps([message.topic.rpartition("/")[2], json.loads(message.payload)]) + chr(10))
"""


@pytest.fixture
def told(farm):
    """Gives the presence events by USB since the test began: (board, details)."""
    running = farm.guest.begin("python3", "-c", LISTENER, EVENTS)
    farm.until("the listener", lambda: running.over or farm.exists(EVENTS))
    assert not running.over, running.result()

    def read():
        lines = farm.guest.check("cat", EVENTS).splitlines()
        found = [json.loads(line) for line in lines if line.endswith("]")]
        return [
            (board, event["details"])
            for board, event in found
            if event["type"] == "presence" and event["details"].get("what") == "usb"
        ]

    yield read
    if not running.over:
        running.stop()
    farm.guest.check("rm", "-f", EVENTS, EVENTS + ".begun")


def state(farm, name):
    boards = farm.guest.run("boardhand", "--json", "boards").json()["boards"]
    return next(board for board in boards if board["board"] == name)


def test_a_usb_device_that_goes_and_comes_with_its_ports_power_is_its_boards_presence(farm, told):
    place, numbered = farm.kernel_name("BRD0001"), farm.kernel_name("BRD0002")

    # Known by its place.
    assert farm.power("by-sysfs", "off")["ok"]
    farm.until("it is gone", lambda: len(told()) == 1)
    assert told() == [("by-sysfs", {"what": "usb", "usb": place, "state": "gone"})]
    assert farm.power("by-sysfs", "on")["ok"]
    farm.until("it is back", lambda: len(told()) == 2)
    # The product is known since the other board's serial number is looked for among devices of these ids.
    plugged = {"what": "usb", "ids": "0403:6001", "product": "QEMU USB SERIAL", "state": "plugged"}
    assert told()[1:] == [("by-sysfs", plugged | {"usb": place})]
    # The device was there before its power was read back: its sign counts all the same.
    up = farm.until("its reason", lambda: (one := state(farm, "by-sysfs"))["reason"] and one)
    assert (up["power"], up["phase"], up["reason"]) == ("on", "starting", f"USB device {place} (QEMU USB SERIAL)")

    # Known by its serial number, which no uevent says.
    assert farm.power("by-libusb", "cycle")["ok"]
    farm.until("it went and came", lambda: len(told()) == 4)
    gone, back = told()[2:]
    assert gone == ("by-libusb", {"what": "usb", "usb": "0403:6001", "state": "gone"})
    assert back == ("by-libusb", plugged | {"usb": numbered})
    up = farm.until("its reason", lambda: (one := state(farm, "by-libusb"))["reason"] and one)
    assert (up["power"], up["phase"], up["reason"]) == ("on", "starting", f"USB device {numbered} (QEMU USB SERIAL)")
