"""Hubs that are pulled out, plugged in elsewhere, and renumbered, on a real kernel."""

import json
import time

import pytest

OTHER_PORTS = ("3", "5")  # of the first controller
# Board -> its outlet and the port; one is switched by sysfs, one by class requests.
BY_METHOD = {"on-third": ("third:1", 1), "on-third-usb": ("third-usb:2", 2)}


@pytest.fixture
def third(farm):
    """Plugs the third hub, with a board on each of two ports, into a port of the controller, or takes it away."""
    guest = farm.guest
    plugged: list[str] = []

    def plug(port: str) -> None:
        guest.plug("usb-hub", "third", bus="xhci.0", port=port, ports=4, serial="THIRD1", **{"port-power": True})
        for number in (1, 2):
            guest.plug("usb-kbd", f"keys{number}", bus="xhci.0", port=f"{port}.{number}", serial=f"KEYS{number}")
        bus = farm.kernel_name("HUBSER1").partition("-")[0]
        name = f"{bus}-{port}"
        plugged.append(name)
        farm.until("the third hub", lambda: farm.exists(f"/sys/bus/usb/devices/{name}.2"))

    def pull() -> None:
        guest.unplug("third")
        name = plugged.pop()
        farm.until("no third hub", lambda: not farm.exists(f"/sys/bus/usb/devices/{name}"))

    yield plug, pull
    if plugged:
        pull()


@pytest.mark.parametrize("board", BY_METHOD)
def test_an_absent_hub_is_one_error_that_says_so(farm, board):
    said = farm.power(board, "off")
    assert (said["ok"], said["power"], said["error"]["kind"]) == (False, "unknown", "unreachable")
    assert "THIRD1" in said["error"]["message"]
    assert said["took_ms"] < 12_000


@pytest.mark.parametrize("board", BY_METHOD)
def test_a_hub_pulled_out_while_it_is_switched_is_one_error_and_works_when_it_is_back_elsewhere(farm, third, board):
    plug, pull = third
    outlet, port = BY_METHOD[board]
    plug(OTHER_PORTS[0])
    assert farm.power(board, "on")["ok"]
    begin = len(farm.guest.hub_trace())
    cycle = farm.guest.begin("boardhand", "--json", "power", board, "cycle")
    farm.until("off", lambda: any(line.startswith("clear") for line in farm.told(begin)))
    began = time.monotonic()
    pull()
    said = cycle.result(60).json()
    assert (said["ok"], said["error"]["kind"]) == (False, "unreachable"), said
    assert said["power"] in {"off", "unknown"}  # what was last read, or nothing
    assert board in said["error"]["message"]
    assert outlet in said["error"]["message"]
    assert time.monotonic() - began < 15
    assert [line for line in farm.told(begin) if line.startswith("set")] == []
    plug(OTHER_PORTS[1])
    assert farm.power(board, "off")["ok"]
    assert farm.foreign_status("THIRD1", port) == "0000"
    assert farm.power(board, "on")["ok"]


def test_a_hub_is_found_again_when_the_kernel_numbers_its_buses_anew(farm):
    guest = farm.guest
    listed = json.loads(guest.check("boardhand", "--json", "hubs"))["hubs"]
    place = next(hub["id"] for hub in listed if hub["serial"] == "HUBSER1")
    first, other = sorted({hub["controller"].removeprefix("pci-") for hub in listed if hub["id"].startswith("pci-")})
    before = farm.kernel_name("HUBSER1")

    def rebind(*controllers: str) -> None:
        for controller in controllers:
            guest.write("/sys/bus/pci/drivers/xhci_hcd/unbind", controller)
        for controller in controllers:
            guest.write("/sys/bus/pci/drivers/xhci_hcd/bind", controller)
        names = ("by-sysfs", "by-libusb")
        farm.until("the consoles", lambda: all(farm.exists(f"/dev/boards/{name}-console") for name in names))

    rebind(other, first)
    try:
        assert farm.kernel_name("HUBSER1") != before
        for board, port in (("by-sysfs", 1), ("by-libusb", 2)):
            assert farm.power(board, "off")["ok"]
            assert farm.foreign_status("HUBSER1", port) == "0000"
            assert farm.power(board, "on")["ok"]
        listed = json.loads(guest.check("boardhand", "--json", "hubs"))["hubs"]
        assert place == next(hub["id"] for hub in listed if hub["serial"] == "HUBSER1")
    finally:
        rebind(first, other)
    farm.until("by-sysfs on", lambda: farm.power("by-sysfs", "on")["ok"])
