"""`boardhand hubs`, its proof, and the rules that it advises, on hubs of a real kernel."""

import pytest

DUMMY = "platform-dummy_hcd.0-usb-0:0"


@pytest.fixture
def hubs(lab):
    """The list, by serial number, or by place where there is none. Nothing has been proved."""

    def read(state: str) -> dict[str, dict]:
        done = lab.guest.run("boardhand", "--json", "hubs", env={"XDG_STATE_HOME": state})
        assert done.code == 0, done.stderr
        return {hub["serial"] or hub["id"]: hub for hub in done.json()["hubs"]}

    return read


def words(hub: dict) -> set[str]:
    return {port["truth"] for port in hub["ports"]}


def test_every_hub_is_named_for_what_it_is(hubs, lab):
    found = hubs("/run/boardhand/nothing-proved")
    assert words(found["HUBSER1"]) == {"claimed"}
    assert words(found["PLAIN1"]) == {"none"}
    assert words(found[DUMMY]) == {"lies"}
    port = found["HUBSER1"]["ports"][0]
    (child,) = port["children"]
    assert (child["serial"], child["ttys"], port["power"]) == ("BRD0001", [lab.tty("BRD0001")], "on")
    roots = [hub for hub in found.values() if hub["root"] and hub["id"].startswith("pci-")]
    theirs = lab.guest.check("uhubctl")
    assert [serial in theirs for serial in ("HUBSER1", "PLAIN1")] == [True, False]  # it lists those that switch
    assert len(roots) == 2  # four buses: each controller's two halves are shown as one
    assert all(words(hub) == {"root-hub"} and hub["other_half"]["by"] == "peer" for hub in roots)


def test_a_proof_is_kept_for_this_hub(hubs, lab):
    state = "/run/boardhand/proofs"
    begin = len(lab.guest.hub_trace())
    done = lab.guest.run("boardhand", "--json", "hubs", "prove", "HUBSER1:1", "--yes", env={"XDG_STATE_HOME": state})
    said = done.json()
    assert (done.code, said["verdict"], said["said_off"], said["said_on"]) == (0, "switches", "off", "on")
    assert {each["name"] for each in said["vanished"]} == {each["name"] for each in said["returned"]} == {
        lab.kernel_name("BRD0001"), lab.tty("BRD0001")
    }  # fmt: skip
    assert lab.told(begin) == ["clear dev 1, port 1", "set dev 1, port 1"]
    ports = {port["port"]: port["truth"] for port in hubs(state)["HUBSER1"]["ports"]}
    assert ports == {1: "per-port", 2: "claimed", 3: "claimed", 4: "claimed"}


@pytest.mark.parametrize(("port", "verdict"), [("HUBSER1:3", "unproved"), ("PLAIN1:1", "lies"), (f"{DUMMY}:1", "lies")])
def test_what_does_not_switch_is_said_and_is_no_success(lab, port, verdict):
    done = lab.guest.run(
        "boardhand",
        "--json",
        "hubs",
        "prove",
        port,
        "--yes",
        "--force",
        env={"XDG_STATE_HOME": "/run/boardhand/other-proofs"},
    )
    assert done.json()["verdict"] == verdict
    assert done.code == 1
    lab.until(
        "what was plugged in",
        lambda: (
            lab.exists("/dev/boards/cabled-cable")
            and lab.exists("/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_BRD0003-if00-port0")
        ),
    )


def test_a_proof_that_is_ended_gives_the_power_back(lab):
    begin = len(lab.guest.hub_trace())
    proof = lab.guest.begin("boardhand", "hubs", "prove", "HUBSER1:1", "--yes")
    lab.until("off", lambda: lab.told(begin) == ["clear dev 1, port 1"])
    assert proof.stop().code != 0
    assert lab.told(begin) == ["clear dev 1, port 1", "set dev 1, port 1"]
    lab.until("the console", lambda: lab.exists("/dev/boards/by-sysfs-console"))


def test_a_port_of_a_root_hub_is_not_tried_by_accident(lab):
    bus = lab.kernel_name("HUBSER1").partition("-")[0]
    root = lab.guest.check("sh", "-c", f"basename $(dirname $(readlink /sys/bus/usb/devices/usb{bus}))").strip()
    begin = len(lab.guest.hub_trace())
    done = lab.guest.run("boardhand", "hubs", "prove", f"pci-{root}-usb-0:0:1", "--yes")
    assert done.code == 5
    assert "--force" in done.stderr
    assert lab.told(begin) == []


AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534")
SWITCH = """
import asyncio, json, sys
from agent.power.driver_kind import DriverContext, find_kind
from agent.power.errors import PowerError

async def main():
    kind = find_kind("usb_hub")
    said = {}
    for method, port in (("sysfs", "1"), ("usb", "2")):
        settings = kind.settings(driver="usb_hub", hub="HUBSER1", method=method)
        driver = kind.driver("hub", settings, DriverContext())
        try:
            await driver.set(port, False)
            said[method] = await driver.get(port)
            await driver.set(port, True)
        except PowerError as problem:
            said[method] = f"{problem.kind}: {problem}"
        await driver.close()
    print(json.dumps(said))

asyncio.run(main())
"""


def test_the_rules_that_are_advised_let_the_group_switch_and_nobody_else(lab):
    guest = lab.guest
    refused = guest.run(*AS_NOBODY, "--clear-groups", "python3", "-", stdin=SWITCH).json()
    for said in refused.values():
        assert said.startswith("configuration:"), refused
        assert "boardhand udev hubs" in said
    guest.write("/run/udev/rules.d/71-boardhand-hubs.rules", guest.check("boardhand", "udev", "hubs"))
    guest.check("udevadm", "control", "--reload")
    guest.check("udevadm", "trigger", "--subsystem-match=usb", "--action=add", "--settle")
    group = guest.check("sh", "-c", "getent group dialout | cut -d: -f3").strip()
    switched = guest.run(*AS_NOBODY, f"--groups={group}", "python3", "-", stdin=SWITCH)
    assert switched.json() == {"sysfs": "off", "usb": "off"}, switched.stderr
    still = guest.run(*AS_NOBODY, "--clear-groups", "python3", "-", stdin=SWITCH).json()
    assert all(said.startswith("configuration:") for said in still.values()), still
    lab.until(
        "both consoles", lambda: all(lab.exists(f"/dev/boards/by-{name}-console") for name in ("sysfs", "libusb"))
    )
