"""One guest for all tests of this folder, with an MQTT server, our agent, and USB devices whose firmware is Python."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware_tools.debian_packages import cache_dir
from virtual_lab.usb_guest import BOARD_PORTS, Running, UsbGuest
from virtual_lab.usb_guest_image import guest_image

SETTINGS = """\
[agent]
name = "lab"
state_dir = "/run/boardhand/state"
read_back_s = 5

[controllers]
sysfs = {driver = "usb_hub", hub = "HUBSER1", method = "sysfs"}
libusb = {driver = "usb_hub", hub = "HUBSER1", method = "usb"}
plain = {driver = "usb_hub", hub = "PLAIN1"}
plain-usb = {driver = "usb_hub", hub = "PLAIN1", method = "usb"}
dummy = {driver = "usb_hub", hub = "platform-dummy_hcd.0-usb-0:0", allow_root = true}
third = {driver = "usb_hub", hub = "THIRD1"}
third-usb = {driver = "usb_hub", hub = "THIRD1", method = "usb"}
cable = {driver = "serial_cable", device = "/dev/boards/cabled-cable"}
relay = {driver = "hid_relay", serial = "REL01"}

[boards]
by-sysfs = {feed = ["sysfs:1"], min_off_s = 0.1, usb = "@PLACE@"}
on-plain = {feed = ["plain:1"], min_off_s = 0.1}
on-plain-usb = {feed = ["plain-usb:2"], min_off_s = 0.1}
on-dummy = {feed = ["dummy:1"], min_off_s = 0.1}
no-such-port = {feed = ["sysfs:9"], min_off_s = 0.1}
on-third = {feed = ["third:1"], min_off_s = 2.0}
on-third-usb = {feed = ["third-usb:2"], min_off_s = 2.0}
cabled = {feed = ["cable:1"], min_off_s = 0.1}
relayed = {feed = ["relay:2"], min_off_s = 0.1}

[boards.by-libusb]
feed = ["libusb:2"]
min_off_s = 0.1
usb = "0403:6001:BRD0002"
console = {device = "@CONSOLE@", telnet_port = 7002}

[boards.flashed]
feed = ["relay:4"]
min_off_s = 0.1

[boards.flashed.actuators]
strap = {outlet = "relay:3"}

[boards.flashed.modes]
normal = ["strap off", "power cycle"]
flash = ["power off", "strap on", "power on", "wait usb 1209:db42 30", "strap off"]

[boards.flashed.flash.dfu]
tool = "dfu-util"
mode = "flash"
device = "1209:db42"
serial = "DFU01"
alt = "0"
find_s = 5

[flash]
folders = ["/run/images"]
"""
BY_ID = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_{serial}-if00-port0"
MOSQUITTO = "listener 1883 127.0.0.1\nuser root\nallow_anonymous true\n"
AGENT_SETTINGS, MQTT_SETTINGS = "/run/boardhand/agent.toml", "/run/boardhand/mosquitto.conf"
CABLE_STATE, RELAY_STATE = "/run/cable.json", "/run/relay.json"
DEADLINE_S = 120.0
AGENT_DEADLINE_S = 300.0
"""Under emulation it started in 49 s beside a load of 5, and took more than 120 s beside one of 18."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test is the first boots the guest and waits for the agent, within its own time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(600))


class Farm:
    """The guest, and what is asked of it again and again."""

    def __init__(self, guest: UsbGuest) -> None:
        self.guest = guest
        self.agent: Running | None = None

    def until(self, what: str, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        """What `condition` gives when it gives something true."""
        end = time.monotonic() + deadline_s
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < end, f"{what}: not after {deadline_s:g} s; {self.guest.last_words()}"
            time.sleep(0.05)

    def exists(self, path: str) -> bool:
        return self.guest.run("test", "-e", path).code == 0

    def tty(self, serial: str) -> str:
        """The tty of an FTDI converter, as udev's own link names it: `ttyUSB0`."""
        return self.guest.check("readlink", BY_ID.format(serial=serial)).strip().rpartition("/")[2]

    def by_path(self, serial: str) -> str:
        """The name of an FTDI converter's tty by its place: it stays when the number changes."""
        found = self.guest.check("find", "-L", "/dev/serial/by-path", "-samefile", BY_ID.format(serial=serial)).split()
        assert found, f"udev names no place of {serial}"
        return found[0]

    def kernel_name(self, serial: str) -> str:
        """The kernel's name of a USB device: `1-1`."""
        found = self.guest.check("sh", "-c", f"grep -lsx {serial} /sys/bus/usb/devices/*/serial; :").split("/")
        assert len(found) > 2, f"no {serial} on USB"
        return found[-2]

    def power(self, board: str, action: str) -> dict[str, Any]:
        """`boardhand power`, as a person uses it. The exit code has to agree with what it says."""
        done = self.guest.run("boardhand", "--json", "power", board, action)
        said = done.json()
        assert (done.code == 0) == said["ok"], (said, done.stderr)
        return said

    def foreign_status(self, serial: str, port: int) -> str:
        """The status bits of a hub's port as uhubctl reads them, as `0103` or `0000`."""
        lines = self.guest.check("uhubctl", "-f", "-l", self.kernel_name(serial), "-p", str(port)).splitlines()
        return next(line.split()[2] for line in lines if line.strip().startswith(f"Port {port}:"))

    def told(self, begin: int = 0) -> list[str]:
        """What QEMU saw its hubs being told about power since the `begin`th line of its trace."""
        found = [line for line in self.guest.hub_trace()[begin:] if line.endswith("feature power")]
        return [
            line.replace("usb_hub_", "").replace("_port_feature", "").replace(", feature power", "") for line in found
        ]

    def state(self, path: str) -> dict[str, Any]:
        """What a gadget's firmware says of itself."""
        return json.loads(self.guest.check("cat", path))

    def start_agent(self) -> None:
        """Return when it has read the power of every board."""
        assert self.agent is None
        self.agent = running = self.guest.begin("boardhand", "agent", "--settings", AGENT_SETTINGS)

        def known() -> bool:
            done = self.guest.run("boardhand", "--json", "boards")
            boards = done.json()["boards"] if done.code == 0 else []
            return len(boards) == SETTINGS.count("feed =") and all(board["agent_state"] == "online" for board in boards)

        self.until("the agent", lambda: running.over or known(), AGENT_DEADLINE_S)
        assert not running.over, running.result()

    def stop_agent(self) -> str:
        """Returns its log."""
        assert self.agent is not None
        running, self.agent = self.agent, None
        done = running.stop()
        assert done.code == 0, done.stderr
        return done.stderr


def start_gadget(farm: Farm, kind: str, udc: str, serial: str, state: str) -> Running:
    module = ["python3", "-m", "virtual_lab.usb_guest_gadgets", kind]
    running = farm.guest.begin(*module, "--udc", udc, "--serial", serial, "--state", state)
    farm.until(f"gadget {serial}", lambda: running.over or farm.exists(state))
    assert not running.over, running.result()
    return running


def rules(farm: Farm) -> str:
    """Names that stay, as a person makes them."""
    named = (f"by-sysfs={farm.tty('BRD0001')}", f"by-libusb={farm.tty('BRD0002')}", "cabled:cable=ttyACM0")
    return farm.guest.check("boardhand", "udev", "rules", *named)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """The guest with everything plugged in, and without an agent."""
    folder = tmp_path_factory.mktemp("usb-guest")
    with UsbGuest(guest_image(cache_dir()), folder) as guest:
        farm = Farm(guest)
        farm.until("the boards", lambda: all(farm.exists(BY_ID.format(serial=serial)) for serial in BOARD_PORTS))
        guest.check("modprobe", "dummy_hcd", "num=2", "is_super_speed=0")
        guest.check("modprobe", "-a", "libcomposite", "usb_f_acm", "usb_f_fs")
        start_gadget(farm, "cable", "dummy_udc.0", "CABLE1", CABLE_STATE)
        start_gadget(farm, "relay", "dummy_udc.1", "REL01", RELAY_STATE)
        farm.until("ttyACM0", lambda: farm.exists("/dev/ttyACM0"))
        guest.write("/run/udev/rules.d/70-boardhand-consoles.rules", rules(farm))
        guest.check("udevadm", "control", "--reload")
        guest.check("udevadm", "trigger", "--subsystem-match=tty", "--action=add", "--settle")
        guest.write(MQTT_SETTINGS, MOSQUITTO)
        guest.begin("mosquitto", "-c", MQTT_SETTINGS)
        settings = SETTINGS.replace("@PLACE@", farm.kernel_name("BRD0001"))
        guest.write(AGENT_SETTINGS, settings.replace("@CONSOLE@", farm.by_path("BRD0002")))
        yield farm


@pytest.fixture(scope="session")
def _agent(lab: Farm) -> Iterator[Farm]:
    lab.start_agent()
    yield lab
    if lab.agent is not None:
        lab.stop_agent()


@pytest.fixture
def farm(_agent: Farm) -> Farm:
    """The guest with our agent running in it."""
    return _agent


@pytest.fixture
def files() -> dict[str, str]:
    return {"cable": CABLE_STATE, "relay": RELAY_STATE}
