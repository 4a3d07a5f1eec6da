"""`boardhand discover`: virtual hubs, relays and serial ports, and settings that are written from them."""

import asyncio
import json
import os
import threading
from argparse import ArgumentParser
from dataclasses import replace

import pytest

from agent.discovery.findings import MqttServer
from agent.settings import load
from cli.command_line import connection_options
from cli.discover import Wanted, discover
from cli.discover_command import DISCOVER
from cli.discover_local import Place, look
from cli.discover_snmp import snmp_accesses
from cli.discover_view import show
from cli.discover_write import plan
from cli.exits import CliError, Exit
from cli.hubs import Bench
from daemon.mqtt_discovery import SrvLookup
from tests.netboot.knot_server import Knot
from virtual_lab.power_cable import VirtualPowerCable
from virtual_lab.usb_hub_tree import Behaviour, UsbHubTree, VirtualDevice

PLACE = "pci-0000:00:14.0-usb-0:1"
HEAD = '# mine\n[agent]\nname = "attic"  # upstairs\nstate_dir = "state"\n'


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


@pytest.fixture
def place(tree, tmp_path):
    """A host with udev's links for the serial ports that are plugged in when `settle` is called."""
    dev = tmp_path / "dev"
    (dev / "serial" / "by-path").mkdir(parents=True)
    return Place(tree.root, dev, Bench(tree.root, tree, tree, tmp_path / "proofs.json"))


def settle(place):
    """What udevd would do: nodes for what is plugged in."""
    for entry in (place.sysfs / "class" / "tty").iterdir():
        (place.dev / entry.name).touch()
    for entry in (place.sysfs / "bus" / "usb" / "devices").iterdir():
        if (entry / "busnum").exists():
            bus, number = (int((entry / name).read_text()) for name in ("busnum", "devnum"))
            node = place.dev / "bus" / "usb" / f"{bus:03d}" / f"{number:03d}"
            node.parent.mkdir(parents=True, exist_ok=True)
            node.touch()


def run(place, **wanted):
    off = {"by_mdns": False, "domains": None}
    return asyncio.run(discover(Wanted(place=place, **(off | wanted)), lambda _what: lambda _done, _count: None))


def command(*words):
    parser = ArgumentParser()
    DISCOVER.options(parser)
    connection_options(parser)
    return DISCOVER.run(parser.parse_args([*words, "--no-mqtt", "--no-mdns", "--no-dns"]))


def farm(tree):
    """A hub that switches, with a hub inside it that does not, two adapters of one serial, and a relay board."""
    outer = tree.hub(tree.root_hub(), 1, serial="HUB1")
    inner = tree.hub(outer, 4, vendor="05e3", product="0610", behaviour=Behaviour.NONE, serial="HUB2")
    tree.plug(outer, 1, VirtualDevice(serial="SAME", ttys=1))
    tree.plug(outer, 2, VirtualDevice(serial="SAME", ttys=1))
    tree.plug(inner, 1, VirtualDevice("16c0", "05df", label="USBRelay2"))
    return outer


# --- what is found --------------------------------------------------------------------------------------------------


def test_a_host_as_a_whole(tree, place, capsys):
    farm(tree)
    settle(place)
    found = run(place)
    hub, inner, relay = found.candidates
    assert (hub.keys, hub.outlets) == ({"driver": "usb_hub", "hub": PLACE}, ("1", "2", "3", "4"))
    assert "it does not switch power: its class descriptor says" in inner.unwritten
    assert (relay.keys, relay.outlets) == ({"driver": "hid_relay"}, ("1", "2"))
    assert len(found.lines) == 2
    assert all("its serial number is not its own" in line.hints[0] for line in found.lines)
    assert found.hindrances == []
    show(found, {f"hub:{PLACE}"})
    text = capsys.readouterr().out
    assert "serial ports: 2" in text
    assert f"{PLACE}  2109:2817 USB Hub  (in the settings)" in text
    assert text.count("(in the settings)") == 1
    assert "not written: it does not switch power" in text
    assert "plugs: none" in text


def test_a_hub_that_nobody_could_ask_is_not_written_and_the_rules_are_named(tree, place, tmp_path):
    farm(tree)
    settle(place)
    found = run(Place(tree.root, place.dev))  # the real libusb, which knows no virtual hub
    assert all("run it as root, or open the hubs to your group" in one.unwritten for one in found.local.candidates[:2])
    assert any(problem.where == "USB hubs" for problem in found.hindrances)


def test_who_may_not_open_a_port_is_told_what_mends_it(tree, place):
    farm(tree)
    settle(place)
    found = run(Place(tree.root, place.dev, place.bench, may_open=lambda _node: False))
    texts = [str(problem) for problem in found.hindrances]
    assert f"{place.dev}/ttyUSB0, {place.dev}/ttyUSB1: permission denied; " in texts[0]
    assert "usermod -aG dialout" in texts[0]
    assert "/bus/usb/001/" in texts[1]


def test_in_a_container_that_has_sysfs_and_no_devices(tree, place):
    farm(tree)
    (problem, *_) = run(place).hindrances
    assert "--device" in problem.do
    assert f"{place.dev}/ttyUSB0" in problem.where


def test_no_usb_and_no_sysfs(tmp_path):
    (tmp_path / "sys" / "devices").mkdir(parents=True)
    none = run(Place(tmp_path / "sys", tmp_path))
    assert (none.candidates, none.lines, none.hindrances) == ([], [], [])
    nowhere = run(Place(tmp_path / "nothing", tmp_path))
    (problem,) = nowhere.hindrances
    assert problem.do == "mount it; a container needs it from its host, as -v /sys:/sys:ro"


def test_adapters_that_come_and_go_meanwhile(tree, place):
    outer = farm(tree)
    settle(place)
    done = threading.Event()
    turns = []

    def hands():
        device = VirtualDevice(serial="X", ttys=2)
        while not done.is_set():
            tree.plug(outer, 3, device)
            tree.unplug(device)
            turns.append(1)

    worker = threading.Thread(target=hands)
    worker.start()
    try:
        for _ in range(25):
            found = look(place)
            assert {port.name for port in found.ports} >= {"ttyUSB0", "ttyUSB1"}
    finally:
        done.set()
        worker.join()
    assert turns


def test_servers_by_dns(tmp_path, place, tree):
    knot = Knot(tmp_path / "knot", {"lab.test": "_mqtt._tcp SRV 0 0 1883 broker\n", "empty.test": ""})
    knot.start()
    try:
        found = run(place, domains=["lab.test", "empty.test"], lookup=lambda: SrvLookup(["127.0.0.1"], port=knot.port))
    finally:
        knot.stop()
    assert found.servers == [MqttServer("mqtt+srv://lab.test", "DNS SRV records, 1 of them")]
    assert [problem.where for problem in found.problems] == ["domain empty.test"]


def test_no_port_is_written_to_without_leave(tree, place, monkeypatch):
    asked = []

    async def ask(port):
        asked.append(port.node)

    monkeypatch.setattr("agent.discovery.power_cables.ask", ask)
    root = tree.root_hub()
    tree.plug(root, 1, VirtualDevice("2e8a", "0005", "E661", "Board in FS mode", ttys=1))
    tree.plug(root, 2, VirtualDevice(serial="FTDI", ttys=1))
    settle(place)
    found = run(place)
    assert asked == []
    assert any("--probe-serial" in hint for line in found.lines for hint in line.hints)
    run(place, probe=["*"])
    assert asked == [f"{place.dev}/ttyUSB0"], "only what is a cable's microcontroller"
    found = run(place, probe=["ttyUSB1", "ttyUSB7"])
    assert asked[1:] == [f"{place.dev}/ttyUSB1"]
    assert [problem.where for problem in found.problems] == ["ttyUSB7"]


async def test_a_power_cable_that_was_asked_is_no_console(tree, place, tmp_path, monkeypatch):
    monkeypatch.setattr("agent.discovery.power_cables.REPLY_S", 20.0)
    tree.plug(tree.root_hub(), 1, VirtualDevice("2e8a", "0005", "E661", "Board in FS mode", ttys=1))
    wanted = Wanted(place=place, by_mdns=False, domains=None, probe=["*"])
    async with VirtualPowerCable(link=place.dev / "ttyUSB0"):
        found = await discover(wanted, lambda _what: lambda _done, _count: None)
        (cable,) = found.cables
        assert cable.keys["device"] == str(place.dev / "ttyUSB0")
        assert found.lines == []
        path = tmp_path / "boardhand.toml"
        plan(found, path, agent="attic").write()
        assert load(path).controllers["cable"].id == cable.keys["id"]
        assert not plan(
            await discover(replace(wanted, probe=[]), lambda _what: lambda *_: None), path, agent=None
        ).changes


def test_a_raspberry_pi_5_has_one_switch(tmp_path, capsys):
    tree = UsbHubTree(tmp_path / "sys", machine="Raspberry Pi 5 Model B Rev 1.0")
    for controller in ("axi/1000120000.pcie/xhci-hcd.0", "axi/1000120000.pcie/xhci-hcd.1"):
        tree.root_hub(controller, ports=2)
        tree.root_hub(controller, ports=1, usb3=True)
    found = run(Place(tree.root, tmp_path, Bench(tree.root, tree, tree, tmp_path / "proofs.json")))
    assert [one.outlets for one in found.candidates if not one.unwritten] == [("all",)]
    assert all("one switch" in one.unwritten for one in found.candidates[1:])


@pytest.mark.parametrize(
    "words",
    [["--network", "10.0.0.0/8"], ["--network", "lab"], ["--dry-run"], ["--agent", "No Id"], ["--write", "/"],
     ["--network", "127.0.0.0/30", "--community-file", "/nothing"],
     ["--auth-key-file", "/nothing"], ["--snmp-user", "me", "--priv-key-env", "KEY"],
     ["--community-file", "/a", "--community-env", "B"], ["--snmp-user", "me", "--auth-protocol", "sha"]],
)  # fmt: skip
def test_a_wrong_command_line(words):
    with pytest.raises(CliError) as problem:
        command(*words)
    assert problem.value.code is Exit.USAGE


def test_credentials_are_named_and_version_3_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    parser = ArgumentParser()
    DISCOVER.options(parser)
    assert snmp_accesses(parser.parse_args([])) == ()
    words = ["--community-file", "public", "--snmp-version", "1", "--snmp-user", "me", "--snmp-port", "1161",
             "--auth-key-file", "auth", "--priv-key-env", "PRIV", "--priv-protocol", "aes256"]  # fmt: skip
    user, community = snmp_accesses(parser.parse_args(words))
    assert user.keys == {
        "version": "3", "user": "me", "auth_protocol": "sha", "auth_key_file": str(tmp_path / "auth"),
        "priv_protocol": "aes256", "priv_key_env": "PRIV",
    }  # fmt: skip
    assert community.keys == {"version": "1", "community_file": str(tmp_path / "public")}
    assert user.port == community.port == 1161


def test_a_network_without_a_community_is_looked_at_for_plugs_alone(place, tree):
    found = run(place, networks=["127.0.0.7/32"], http_port=1)
    assert [problem.where for problem in found.problems] == ["PDUs and PoE switches"]


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_new_file_and_a_second_run(tree, place, tmp_path, capsys):
    farm(tree)
    settle(place)
    path = tmp_path / "boardhand.toml"
    first = plan(run(place), path, agent="attic")
    first.write()
    settings = load(path)
    assert settings.agent.name == "attic"
    assert {name: one.driver for name, one in settings.controllers.items()} == {"hub": "usb_hub", "relay": "hid_relay"}
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_text().count("#     device = ") == 2
    again = plan(run(place), path, agent=None)
    assert not again.changes
    assert again.diff() == ""


def test_a_persons_file_stays_and_only_what_is_new_comes_in(tree, place, tmp_path):
    farm(tree)
    settle(place)
    own = tmp_path / "own.toml"
    text = (
        HEAD + '[controllers.shelf]\ndriver = "usb_hub"\nhub = "HUB1" # by serial\n\n[boards.one]\nfeed = ["shelf:1"]\n'
    )
    own.write_text(text + f'console = "{place.dev}/ttyUSB0"\n')
    own.chmod(0o640)
    link = tmp_path / "boardhand.toml"
    link.symlink_to(own)
    made = plan(run(place), link, agent=None)
    assert list(made.additions.controllers) == ["relay"]
    assert [line.device for line in made.additions.serial_lines] == [f"{place.dev}/ttyUSB1"]
    assert not any(line.startswith("-") for line in made.diff().splitlines()[2:])
    made.write()
    assert link.is_symlink()
    assert own.stat().st_mode & 0o777 == 0o640
    assert set(load(own).controllers) == {"shelf", "relay"}
    assert not plan(run(place), link, agent=None).changes
    assert sorted(entry.name for entry in tmp_path.glob(".boardhand-*")) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[agent", "is no TOML"),
        ("controllers = {}\n", "write yours as tables"),
        ("[agent]\nname = '\xff'\n", "no TOML"),
    ],
)
def test_a_file_that_cannot_take_it_stays_as_it_is(text, problem, tree, place, tmp_path):
    farm(tree)
    path = tmp_path / "boardhand.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CliError, match=problem):
        plan(run(place), path, agent=None)
    assert path.read_bytes() == text.encode("latin-1")


def test_one_that_is_written_to_meanwhile_is_left_alone(tree, place, tmp_path):
    farm(tree)
    path = tmp_path / "boardhand.toml"
    path.write_text(HEAD)
    made = plan(run(place), path, agent=None)
    path.write_text(HEAD + "# one thing more\n")
    with pytest.raises(CliError, match="changed by somebody else"):
        made.write()
    assert path.read_text() == HEAD + "# one thing more\n"
    assert sorted(entry.name for entry in tmp_path.glob(".boardhand-*")) == []


def test_a_folder_that_is_not_there(tree, place, tmp_path):
    with pytest.raises(CliError, match="cannot be written: No such file"):
        plan(run(place), tmp_path / "none" / "boardhand.toml", agent="a").write()


def test_a_file_that_is_not_whole_yet_takes_additions_too(tree, place, tmp_path):
    farm(tree)
    path = tmp_path / "boardhand.toml"
    path.write_text("# begun\n[netboot]\n")
    plan(run(place), path, agent=None).write()
    assert path.read_text().startswith("# begun\n[netboot]\n\n# ")
    assert "[controllers.hub]" in path.read_text()


def test_the_command_on_dry_run_writes_nothing(tree, tmp_path, capsys):
    farm(tree)
    path = tmp_path / "boardhand.toml"
    words = ["--sysfs", str(tree.root), "--dev", str(tmp_path / "dev"), "--write", str(path), "--agent", "attic"]
    assert command(*words, "--dry-run") == Exit.OK
    out, err = capsys.readouterr()
    assert f"--- {os.devnull}\n+++ {path}\n" in out
    assert '+name = "attic"\n' in out
    assert "the kernel has it and it is not here" in err
    assert not path.exists()
    assert command(*words, "--json") == Exit.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["written"] == str(path)
    assert [one["name"] for one in answer["controllers"]] == [None, None, "relay"]
    assert command(*words) == Exit.OK
    assert capsys.readouterr().out.endswith(f"{path}: nothing new\n")
