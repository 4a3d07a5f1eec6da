"""The whole path, from `boardhand power` over MQTT and our agent to a hub, with three witnesses that are not ours: the
kernel's ttys with udev's links, uhubctl, and QEMU's own trace of what its hub was told."""

import pytest

CONSOLES = {"by-sysfs": ("BRD0001", 1), "by-libusb": ("BRD0002", 2)}
OFF, ON = "0000", "0103"  # wPortStatus: nothing; powered, enabled, connected
PATIENCE_MS = 30_000  # 1.3 s beside little load; one of two cores, shared by eight, has been seen to take 5 to 14 s


@pytest.mark.parametrize("board", CONSOLES)
def test_a_port_is_switched_and_its_tty_vanishes_and_returns(farm, board):
    serial, port = CONSOLES[board]
    ours, udevs = f"/dev/boards/{board}-console", f"/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_{serial}-if00-port0"
    assert farm.exists(ours)
    begin = len(farm.guest.hub_trace())
    off = farm.power(board, "off")
    assert (off["ok"], off["power"]) == (True, "off")
    assert farm.foreign_status("HUBSER1", port) == OFF
    farm.until("both names gone", lambda: not farm.exists(ours) and not farm.exists(udevs))
    other = CONSOLES["by-libusb" if board == "by-sysfs" else "by-sysfs"][1]
    assert farm.foreign_status("HUBSER1", other) == ON
    on = farm.power(board, "on")
    assert (on["ok"], on["power"]) == (True, "on")
    farm.until("both names back", lambda: farm.exists(ours) and farm.exists(udevs))
    assert farm.foreign_status("HUBSER1", port) == ON
    assert farm.told(begin) == [f"clear dev 1, port {port}", f"set dev 1, port {port}"]
    assert off["took_ms"] < PATIENCE_MS
    assert on["took_ms"] < PATIENCE_MS


@pytest.mark.parametrize("board", CONSOLES)
def test_what_is_off_stays_off(farm, board):
    """The kernel powers a port on again when it is made to look at one that lost its device: see `_tell_kernel`."""
    port = CONSOLES[board][1]
    begin = len(farm.guest.hub_trace())
    assert farm.power(board, "off")["ok"]
    farm.guest.check("udevadm", "settle")
    assert farm.guest.run("sh", "-c", "sleep 3; lsusb >/dev/null; lsusb -t >/dev/null").code == 0
    assert farm.foreign_status("HUBSER1", port) == OFF
    assert farm.told(begin) == [f"clear dev 1, port {port}"]
    assert farm.power(board, "on")["ok"]
    farm.until("the console", lambda: farm.exists(f"/dev/boards/{board}-console"))


def test_a_cycle_is_one_off_and_one_on(farm):
    begin = len(farm.guest.hub_trace())
    said = farm.power("by-sysfs", "cycle")
    assert (said["ok"], said["power"]) == (True, "on")
    assert farm.told(begin) == ["clear dev 1, port 1", "set dev 1, port 1"]
    farm.until("the console", lambda: farm.exists("/dev/boards/by-sysfs-console"))


def test_a_program_that_reads_the_console_is_told(farm):
    """A reader of the tty ends with the power; it does not hang."""
    tty = farm.tty("BRD0001")
    reader = farm.guest.begin("cat", "/dev/boards/by-sysfs-console")
    farm.until("the reader", lambda: farm.guest.run("sh", "-c", f"ls -l /proc/[0-9]*/fd | grep -q {tty}").code == 0)
    assert farm.power("by-sysfs", "off")["ok"]
    reader.result(20)
    assert farm.power("by-sysfs", "on")["ok"]
    farm.until("the console", lambda: farm.exists("/dev/boards/by-sysfs-console"))


def test_a_stranger_at_the_hub_is_noticed(farm):
    def believed() -> str:
        boards = farm.guest.run("boardhand", "--json", "boards").json()["boards"]
        return next(board["power"] for board in boards if board["board"] == "by-sysfs")

    farm.guest.check("uhubctl", "-l", farm.kernel_name("HUBSER1"), "-p", "1", "-a", "off")
    farm.until("the truth", lambda: believed() == "off")
    farm.guest.check("uhubctl", "-l", farm.kernel_name("HUBSER1"), "-p", "1", "-a", "on")
    farm.until("the truth", lambda: believed() == "on")


@pytest.mark.parametrize("board", ["on-plain", "on-plain-usb"])
@pytest.mark.parametrize("action", ["off", "cycle"])
def test_a_hub_without_switching_is_refused_before_it_is_told(farm, board, action):
    begin = len(farm.guest.hub_trace())
    said = farm.power(board, action)
    assert (said["ok"], said["power"], said["error"]["kind"]) == (False, "on", "configuration")
    assert "no power switching" in said["error"]["message"]
    assert "boardhand hubs" in said["error"]["message"]
    assert farm.told(begin) == []


def test_the_root_hub_that_lies_is_refused_with_its_name(farm):
    said = farm.power("on-dummy", "off")
    assert (said["ok"], said["error"]["kind"]) == (False, "configuration")
    assert "dummy_hcd" in said["error"]["message"]
    assert farm.exists("/dev/boards/cabled-cable")


def test_a_port_that_the_hub_has_not_is_refused(farm):
    said = farm.power("no-such-port", "on")
    assert (said["ok"], said["power"], said["error"]["kind"]) == (False, "unknown", "configuration")
    assert "1, 2, 3, 4" in said["error"]["message"]
