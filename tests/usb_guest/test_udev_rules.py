"""`boardhand udev install` and `check` against real systemd-udevd: four adapters, of which two say the same serial
number, have right names through replugging in another order, for a user who is not root. Who is behind a name, QEMU
tells: it keeps what was written into each adapter."""

import json

import pytest

from tests.usb_guest.conftest import BY_ID, Farm

SETTINGS_PATH = "/run/boardhand/udev-test.toml"
SETTINGS = """\
[agent]
name = "lab"
state_dir = "/run/boardhand/state"

[controllers]
hub = {{driver = "usb_hub", hub = "HUBSER1"}}
cable = {{driver = "serial_cable", device = "/dev/boards/cabled-cable"}}

[boards]
by-sysfs = {{feed = ["hub:1"], console = "{by_id}"}}
twin-a = {{feed = ["hub:2"], console = "{twin_a}"}}
twin-b = {{feed = ["hub:3"], console = "{twin_b}"}}
alone = {{feed = ["hub:4"], console = "{alone}"}}
cabled = {{feed = ["cable:1"]}}
"""
pytestmark = pytest.mark.timeout(900)  # some fifteen starts of our command line, under emulation, on a loaded machine
RULES = ("70-boardhand-consoles.rules", "70-boardhand-hubs.rules", "70-boardhand-devices.rules")
BY_PATH = "/dev/serial/by-path/pci-{controller}-usb-0:{port}:1.0-port0"
TWIN, ALONE, LATER_HUB = "TWIN01", "ALONE1", "LATER1"
HOSTILE = 'x", RUN+="/bin/touch /run/pwned'
PLACES = {"twin-a": "2.3", "twin-b": "2.4", "alone": "1.3"}
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534")


class Adapters:
    """Serial converters that are plugged and pulled one by one; QEMU keeps the last bytes that each was given."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm
        self.plugged: dict[str, str] = {}

    def plug(self, name: str, port: str, serial: str) -> None:
        qemu = self.farm.guest
        qemu.qmp("chardev-add", id=f"ring-{name}", backend={"type": "ringbuf", "data": {"size": 64}})
        properties = {"port": port, "serial": serial, "chardev": f"ring-{name}", "always-plugged": True}
        qemu.plug("usb-serial", name, bus="xhci.0", **properties)
        self.plugged[name] = port
        self.farm.until(f"the tty of {name}", lambda: self.tty(port))

    def pull(self, name: str) -> None:
        port = self.plugged.pop(name)
        self.farm.guest.unplug(name)
        self.farm.until(f"no tty of {name}", lambda: not self.tty(port))
        self.farm.guest.qmp("chardev-remove", id=f"ring-{name}")

    def tty(self, port: str) -> str:
        """`ttyUSB3`, or nothing while udev has not finished with it."""
        done = self.farm.guest.run("readlink", self.by_path(port))
        return done.stdout.strip().rpartition("/")[2]

    def by_path(self, port: str) -> str:
        controller = self.farm.guest.check("sh", "-c", "readlink -f /sys/bus/usb/devices/usb1").split("/")[-2]
        return BY_PATH.format(controller=controller, port=port)

    def who_is(self, link: str) -> str:
        """The adapter that hears what an unprivileged member of dialout writes into `link`."""
        write = f"stty -F {link} raw -echo && printf %s {link[-14:]} > {link}"
        self.farm.guest.check(*NOBODY, "--groups", "20", "sh", "-c", write)

        def heard() -> list[str]:
            told = {name: self.farm.guest.qmp("ringbuf-read", device=f"ring-{name}", size=64) for name in self.plugged}
            return [name for name, text in told.items() if text.endswith(link[-14:])]

        (name,) = self.farm.until(f"what was written into {link}", heard)
        return str(name)


@pytest.fixture
def adapters(farm):
    """The names that the other tests live on were installed before, in /run; all is put back behind."""
    found = Adapters(farm)
    yield found
    for name in list(found.plugged):
        found.pull(name)
    farm.guest.check("rm", "-f", *(f"/etc/udev/rules.d/{name}" for name in RULES), "/run/pwned")
    closed = 'chgrp root "$@"; chmod 0644 "$@"'
    farm.guest.check("sh", "-c", f"set -- /sys/bus/usb/devices/*/*-port*/disable; {closed}")
    farm.guest.check("sh", "-c", "chgrp root /dev/bus/usb/*/*")
    farm.guest.check("udevadm", "control", "--reload")
    farm.guest.check("udevadm", "trigger", "--subsystem-match=tty", "--action=add", "--settle")
    for name in ("by-sysfs-console", "by-libusb-console", "cabled-cable"):
        farm.until(name, lambda name=name: farm.exists(f"/dev/boards/{name}"))


def udev(farm, *words, code=0):
    """`boardhand udev` as root; its document."""
    done = farm.guest.run("boardhand", "--json", "udev", *words, timeout_s=180)
    assert done.code == code, (done.code, done.stdout, done.stderr)
    return json.loads(done.stdout)


def wrong(said):
    return {found["device"] or found["what"]: found["state"] for found in said["findings"] if not found["ok"]}


def test_names_access_and_flags_through_replugging(adapters, farm):
    for name in ("twin-a", "twin-b", "alone"):
        adapters.plug(name, PLACES[name], ALONE if name == "alone" else TWIN)
    before = {name: adapters.tty(PLACES[name]) for name in PLACES}
    devices = {
        "by_id": BY_ID.format(serial="BRD0001"),
        "twin_a": adapters.by_path(PLACES["twin-a"]),
        "twin_b": adapters.by_path(PLACES["twin-b"]),
        "alone": f"/dev/{before['alone']}",
    }
    shared = BY_ID.format(serial=TWIN)
    farm.guest.write(SETTINGS_PATH, SETTINGS.format(**{**devices, "twin_a": shared}))
    refused = udev(farm, "show", "--settings", SETTINGS_PATH, code=2)["error"]["message"]
    assert "more than one adapter has this name" in refused
    assert devices["twin_a"] in refused

    farm.guest.write(SETTINGS_PATH, SETTINGS.format(**devices))
    assert set(wrong(udev(farm, "check", "--settings", SETTINGS_PATH, code=1)).values()) >= {
        "differs",
        "is not installed",
        "the name is not there; ModemManager may open it: ID_MM_DEVICE_IGNORE and ID_MM_PORT_IGNORE not set",
    }
    held = farm.guest.check("readlink", "/dev/boards/by-libusb-console")
    said = udev(farm, "install", "--settings", SETTINGS_PATH)
    known = {entry["name"]: entry["known"] for entry in said["names"]}
    assert "by port" in known["/dev/boards/twin-a-console"]
    assert "by serial number" in known["/dev/boards/alone-console"]
    assert any(before["alone"] in notice and "changes" in notice for notice in said["notices"])
    assert farm.guest.check("readlink", "/dev/boards/by-libusb-console") == held, "a name from before stays"
    assert wrong(udev(farm, "check")) == {}
    assert [adapters.who_is(f"/dev/boards/{name}-console") for name in PLACES] == list(PLACES)

    # In another order: each gets another number, and the one with its own serial number another port.
    for name in PLACES:
        adapters.pull(name)
    for name, port in (("alone", "1.4"), ("twin-b", PLACES["twin-b"]), ("twin-a", PLACES["twin-a"])):
        adapters.plug(name, port, ALONE if name == "alone" else TWIN)
    after = {name: adapters.tty(port) for name, port in adapters.plugged.items()}
    assert all(after[name] != before[name] for name in ("alone", "twin-a")), (before, after)
    assert [adapters.who_is(f"/dev/boards/{name}-console") for name in PLACES] == list(PLACES)
    # The settings still say the old number, which is another's now: what was installed stands.
    assert wrong(udev(farm, "check", "--settings", SETTINGS_PATH)) == {}

    # One whose power our agent switches.
    assert farm.power("by-sysfs", "off")["ok"]
    farm.until("no name", lambda: not farm.exists("/dev/boards/by-sysfs-console"))
    assert farm.power("by-sysfs", "on")["ok"]
    farm.until("the name", lambda: farm.exists("/dev/boards/by-sysfs-console"))
    assert farm.guest.check("readlink", "-f", "/dev/boards/by-sysfs-console").strip() == f"/dev/{farm.tty('BRD0001')}"

    # Access is the group's and nobody else's; also to the hubs' switches, which come and go with their hub.
    link = "/dev/boards/twin-a-console"
    assert farm.guest.run(*NOBODY, "--clear-groups", "sh", "-c", f": > {link}").code != 0
    switch = "test -w /sys/bus/usb/devices/1-1:1.0/1-1-port3/disable"
    assert farm.guest.run(*NOBODY, "--groups", "20", "sh", "-c", switch).code == 0
    assert farm.guest.run(*NOBODY, "--clear-groups", "sh", "-c", switch).code != 0
    # A hub that comes later is as open: its switches are there when its driver is.
    later = {"bus": "xhci.0", "port": "5", "ports": 4, "serial": LATER_HUB, "port-power": True}
    farm.guest.plug("usb-hub", "later", **later)
    below = f'test -w "$(dirname "$(grep -lsx {LATER_HUB} /sys/bus/usb/devices/*/serial)")"/*:1.0/*-port1/disable'
    nobody = (*NOBODY, "--groups", "20", "sh", "-c", below)
    farm.until("the later hub's switches", lambda: farm.guest.run(*nobody).code == 0)
    farm.guest.unplug("later")
    relay = 'grep -lsx REL01 /sys/bus/usb/devices/*/serial | sed "s,/serial,,"'
    node = farm.guest.check("sh", "-c", f'. "$({relay})/uevent"; echo "/dev/$DEVNAME"').strip()
    assert farm.guest.run(*NOBODY, "--groups", "20", "test", "-w", node).code == 0
    assert farm.guest.run(*NOBODY, "--clear-groups", "test", "-w", node).code != 0

    # What somebody broke is told, with the command that mends it.
    tty = f"/dev/{after['twin-b']}"
    farm.guest.check("chgrp", "root", tty)
    farm.guest.check("rm", "/dev/boards/alone-console")
    broken = udev(farm, "check", code=1)
    assert wrong(broken) == {
        tty: f"{tty} belongs to group root",
        f"/dev/{after['alone']}": "the name is not there, though the rules give it",
    }
    mends = {found["device"]: found["do"] for found in broken["findings"] if not found["ok"]}
    assert mends[tty] == "boardhand udev install"
    for mend in mends.values():
        farm.guest.check("sh", "-c", mend, timeout_s=180)
    assert wrong(udev(farm, "check")) == {}


def test_a_serial_number_that_would_be_a_rule(adapters, farm):
    adapters.plug("hostile", "1.4", HOSTILE)
    tty = adapters.tty("1.4")
    assert farm.guest.check("cat", f"/sys/class/tty/{tty}/../../../../serial").strip() == HOSTILE
    said = udev(farm, "install", f"hostile={tty}")
    assert {entry["name"]: entry["known"] for entry in said["names"]}["/dev/boards/hostile-console"] == (
        "by port, since its serial number cannot stand in a rule: it must stay where it is"
    )
    assert adapters.who_is("/dev/boards/hostile-console") == "hostile"
    adapters.pull("hostile")
    adapters.plug("hostile", "1.4", HOSTILE)
    assert adapters.who_is("/dev/boards/hostile-console") == "hostile"
    assert not farm.exists("/run/pwned")
    assert wrong(udev(farm, "check")) == {}
