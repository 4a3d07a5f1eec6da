"""The Debian package in a clean Debian root: installed, run by its units' own command lines, removed, purged.

`make test-deb` runs it: it needs root, the package (`make deb`) and a root (`tests.packaging.clean_root`).
"""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from firmware_tools.debian_packages import cache_dir
from tests.packaging.clean_root import clean_root
from tests.packaging.machine import PATIENCE_S, Machine, Unit, snapshot

ROOT = Path(__file__).resolve().parents[2]
NETBOOT = """
[netboot]
interface = "bh-deb"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"

[controllers.shelf]
driver = "command"
on = ["/usr/bin/touch", "/var/lib/boardhand/agent/{outlet}"]
off = ["/bin/rm", "-f", "/var/lib/boardhand/agent/{outlet}"]
state = ["/bin/sh", "-c", "test -e /var/lib/boardhand/agent/{outlet} && echo on || echo off"]

[boards.first]
feed = ["shelf:one"]
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def package():
    (found,) = (ROOT / "dist").glob("boardhand_*.deb")
    return found


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    root = tmp_path_factory.mktemp("machine") / "root"
    root.mkdir()
    root.parent.parent.chmod(0o755)
    subprocess.run(
        ["tar", "-x", "-f", clean_root(cache_dir()), "-C", root, "--exclude=./dev/*"], check=True, timeout=120
    )
    made = Machine(root)
    yield made
    made.close()


@pytest.fixture(scope="module")
def before(machine):
    return snapshot(machine.root)


@pytest.fixture(scope="module")
def installed(machine, before, package):
    target = machine.root / "tmp" / package.name
    target.write_bytes(package.read_bytes())
    machine.run("dpkg", "--install", str(target).removeprefix(str(machine.root)))
    target.unlink()
    return machine


@pytest.fixture(scope="module")
def farm(installed):
    """MQTT server, broker and agent, as the units start them."""
    settings = installed.root / "etc/boardhand/agent.toml"
    settings.write_text(settings.read_text() + NETBOOT)
    installed.begin("mosquitto", "-p", "1883")
    broker, agent = Unit(installed, "boardhand-broker"), Unit(installed, "boardhand-agent")
    broker.start()
    agent.start()
    return broker, agent


def test_what_an_installation_is(installed):
    assert installed.run("boardhand", "--version").startswith("boardhand ")
    assert installed.run("dpkg", "--verify", "boardhand") == ""
    # Nothing is started, and settings are closed to others, because they may name secrets.
    wants = installed.root / "etc/systemd/system/multi-user.target.wants"
    assert not list(wants.glob("boardhand*"))
    assert installed.run("stat", "-c", "%a %U %G", "/etc/boardhand").split() == ["2750", "root", "boardhand"]
    assert installed.run("stat", "-c", "%a %U", "/var/lib/boardhand/agent").split() == ["750", "boardhand"]
    assert {"dialout", "plugdev"} <= set(installed.run("id", "-nG", "boardhand").split())
    for name in ("agent", "broker"):
        installed.run("boardhand", "check", f"/etc/boardhand/{name}.toml")


def test_the_units_are_right(installed):
    for name in ("agent", "broker"):
        said = installed.run(
            "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"boardhand-{name}.service"
        )
        assert said == ""


def test_agent_and_broker_work(installed, farm):
    _, agent = farm
    ends = time.monotonic() + PATIENCE_S
    boards = []
    while not boards and time.monotonic() < ends:
        boards = json.loads(installed.run("boardhand", "boards", "--json"))["boards"]
    assert [(board["board"], board["power"]) for board in boards] == [("first", "off")]
    installed.run("boardhand", "power", "first", "on")
    assert (installed.root / "var/lib/boardhand/agent/one").exists()
    assert installed.run("stat", "-c", "%U", "/var/lib/boardhand/agent/one") == "boardhand\n"
    agent.send(signal.SIGHUP)
    assert json.loads(installed.run("boardhand", "power", "first", "status", "--json"))["power"] == "on"


def test_the_doctor_finds_them_well(installed, farm):
    said = json.loads(installed.run("boardhand", "doctor", "--json", code=None))
    wrong = [found for found in said["findings"] if found["verdict"] == "wrong"]
    # Whether this machine's clock is kept is its owner's business.
    assert [found for found in wrong if found["check"] != "clock"] == []
    words = {(found["check"], found["subject"]): found for found in said["findings"]}
    assert "the agent listens" in words["ports", "udp 67 (DHCP)"]["what"]
    assert "the agent listens" in words["ports", "udp 69 (TFTP)"]["what"]
    assert words["privileges", "CAP_NET_RAW"]["verdict"] == "ok"
    assert words["network", "DHCP servers on bh-deb"]["what"] == "nobody answers but the agent"
    assert words["mqtt", "what the agent says"]["verdict"] == "ok"


def test_it_stops_and_goes_without_a_trace(installed, before, farm, package):
    broker, agent = farm
    assert (agent.stop(), broker.stop()) == (0, 0)
    installed.run("systemctl", "enable", "boardhand-agent", "boardhand-broker", code=None)
    installed.run("dpkg", "--remove", "boardhand")
    left = {path for path, what in snapshot(installed.root).items() if before.get(path) != what}
    accounts = {"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"}
    assert {path for path in left - accounts if not path.startswith(("etc/boardhand", "var/lib/boardhand"))} == set()
    assert {"etc/boardhand/agent.toml", "var/lib/boardhand/agent/agent.db"} <= left  # settings and data
    (installed.root / "etc/boardhand/tokens.toml").write_text("")
    installed.run("dpkg", "--purge", "boardhand")
    after = snapshot(installed.root)
    left = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert left == {"etc/boardhand", "etc/boardhand/tokens.toml"}  # what a person laid there
