"""`boardhand udev` on folders: a tree of sysfs, a folder of nodes, and an udevadm that obeys the installed rules."""

import grp
import json
import os
import stat
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import pytest

from cli.exits import CliError, Exit
from cli.udev_check import check
from cli.udev_command import UDEV
from cli.udev_host import UdevHost, run_program
from cli.udev_rules import Asked, install, show
from tests.udev.conftest import SysfsTree
from udev import rules_devices
from udev.rules import RULES_FILE_NAME, facts, read_names, selects
from udev.rules_devices import DEVICE_RULES_FILE_NAME, HUB_RULES_FILE_NAME
from udev.serial_ports import serial_ports
from virtual_lab.usb_hub_tree import UsbHubTree

FILES = [RULES_FILE_NAME, HUB_RULES_FILE_NAME, DEVICE_RULES_FILE_NAME]
GROUP = grp.getgrgid(os.getgid()).gr_name
BY_ID = "/dev/serial/by-id/usb-FTDI_{serial}-if00-port0"
BY_PATH = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1.{port}:1.0-port0"
SETTINGS = """\
[agent]
name = "lab"
state_dir = "state"

[controllers]
cable = {{driver = "serial_cable", device = "{cable}"}}
rack = {{driver = "serial_cable", device = "{rack}"}}

[boards]
b1 = {{feed = ["cable:1"], console = "{console}"}}
b2 = {{feed = ["rack:1"], console = "tcp:terminals:4001"}}
b3 = {{feed = ["rack:2"], console = "pty:/dev/pts/3"}}
"""


class Udev:
    """udev and its database: what the rules file names is named when a device is triggered."""

    def __init__(self, folder: Path) -> None:
        self.sysfs = SysfsTree(folder / "sys")
        self.dev, self.root = folder / "dev", folder / "root"
        self.dev.mkdir()
        self.host = UdevHost(self.root, self.sysfs.root, self.dev, self.run)
        self.asked: list[list[str]] = []
        self.flags: dict[str, dict[str, str]] = {}
        self.broken = ""
        self.verifies = False
        self.obeys = True

    def plug(self, name: str, port: int, serial: str | None) -> None:
        self.sysfs.usb_serial(name, f"1-1.{port}", "0403:6001", serial)
        (self.dev / name).touch()
        (self.dev / name).chmod(0o600)
        self.flags[name] = {"ID_BUS": "usb", "ID_SERIAL": f"FTDI_{serial}"}

    def run(self, argv):
        self.asked.append(list(argv))
        if self.broken and argv[1] == self.broken:
            return subprocess.CompletedProcess(argv, 1, "", "Failed to send\nreload request")
        said = ""
        if argv[1] == "info":
            said = "P: /devices/pci0000:00\nE: SUBSYSTEM=pci\n"
            for name, values in self.flags.items():
                said += f"\nP: /devices/x/tty/{name}\n" + "".join(f"E: {key}={v}\n" for key, v in values.items())
        elif argv[1] == "--help":
            said = "  info\n  verify   Check rules\n" if self.verifies else "  info\n"
        elif argv[1] == "trigger" and self.obeys:
            for path in argv[3:]:
                self.name(Path(path).name)
        elif argv[1] == "test":
            said = f"DEVLINKS=/dev/x {' '.join(f'/dev/{link}' for link in self.links(Path(argv[3]).name))}\n"
        return subprocess.CompletedProcess(argv, 0, said, "")

    def links(self, tty: str) -> list[str]:
        names = read_names(self.rules())
        port = next((port for port in serial_ports(self.sysfs.root) if port.name == tty), None)
        if port is None:
            return []
        return [link for link, entry in names.items() if selects(entry.terms, facts(port, self.flags[tty]))]

    def name(self, tty: str) -> None:
        for link in self.links(tty):
            path = self.dev / link
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(f"../{tty}")
            (self.dev / tty).chmod(0o660)
            self.flags[tty] |= {"ID_MM_DEVICE_IGNORE": "1", "ID_MM_PORT_IGNORE": "1"}

    def rules(self, name: str = RULES_FILE_NAME) -> str:
        path = self.root / "etc/udev/rules.d" / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def udev(tmp_path: Path) -> Udev:
    return Udev(tmp_path)


@pytest.fixture
def settings(tmp_path: Path):
    def write(**devices: str) -> Path:
        path = tmp_path / "agent.toml"
        rest = {"cable": "/dev/boards/b1-cable", "rack": "/dev/nowhere", "console": BY_PATH.format(port=1)}
        path.write_text(SETTINGS.format(**(rest | devices)))
        return path

    return write


def asked(*words: str, path: Path | None = None, fresh: bool = False) -> Asked:
    return Asked(words, path, GROUP, fresh)


def document(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def findings(udev: Udev, want: Asked, capsys, user: str | None = None) -> tuple[int, dict[str, tuple[bool, str, str]]]:
    capsys.readouterr()
    code = check(udev.host, want, user, as_json=True)
    return code, {f["what"].rpartition("/")[2]: (f["ok"], f["state"], f["do"]) for f in document(capsys)["findings"]}


def test_install_writes_reloads_and_triggers_what_it_concerns(udev, capsys):
    udev.plug("ttyUSB0", 1, "OWN1")
    udev.plug("ttyUSB1", 2, "OWN2")
    assert install(udev.host, asked("b1=ttyUSB0"), as_json=True) == Exit.OK
    said = document(capsys)
    assert [Path(path).name for path in said["files"]] == FILES
    assert [Path(path).name for path in said["triggered"]] == ["ttyUSB0"], "the other port is nobody's"
    assert [entry["name"] for entry in said["names"]] == ["/dev/boards/b1-console"]
    verbs = [line[1] for line in udev.asked]
    assert verbs[-3:] == ["control", "trigger", "settle"]
    folder = udev.root / "etc/udev/rules.d"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES), "no half file is left"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in folder.iterdir())
    assert f'GROUP="{GROUP}"' in udev.rules()
    assert (udev.dev / "boards/b1-console").resolve() == udev.dev / "ttyUSB0"


def test_the_text_for_people(udev, settings, capsys):
    udev.plug("ttyUSB0", 1, None)
    install(udev.host, asked(path=settings(console="/dev/ttyUSB0")), as_json=False)
    said = capsys.readouterr()
    assert "/dev/boards/b1-console  by port, since the adapter has no serial number: it must stay" in said.out
    assert "write /dev/boards/b1-console" in said.err
    show(udev.host, asked(), as_json=False)
    said = capsys.readouterr()
    assert all(f"# --- /etc/udev/rules.d/{name}" in said.out for name in FILES)
    assert check(udev.host, asked(), None, as_json=False) == Exit.OK
    assert "name, access and ModemManager flags stand" in capsys.readouterr().out


def test_names_from_settings(udev, settings, capsys):
    udev.plug("ttyUSB0", 1, "OWN1")
    udev.plug("ttyUSB1", 2, "OWN2")
    install(udev.host, asked("b1:cable=ttyUSB1"), as_json=True)
    capsys.readouterr()
    path = settings(rack="/dev/serial/by-id/usb-Maker_Relay_X1-if00")
    assert install(udev.host, asked(path=path), as_json=True) == Exit.OK
    said = document(capsys)
    assert {entry["name"]: entry["ports"] for entry in said["names"]} == {
        "/dev/boards/b1-cable": ["/dev/ttyUSB1"],
        "/dev/boards/b1-console": ["/dev/ttyUSB0"],
        "/dev/boards/rack-power": [],
    }
    assert said["notices"] == ["b3: /dev/pts/3 is no device of udev's: no rule for it"]
    code, found = findings(udev, asked(path=path), capsys)
    assert code == Exit.OK, found
    assert found["rack-power"][1] == "nothing that it names is plugged in now"


def test_wrong_settings_and_words(udev, settings, tmp_path):
    udev.plug("ttyUSB0", 1, "SAME")
    udev.plug("ttyUSB1", 2, "SAME")
    wrong = [
        asked(path=tmp_path / "none.toml"),
        asked(path=settings(cable="/dev/boards/b1")),
        asked(path=settings(console=BY_ID.format(serial="SAME"))),
        asked("b1"),
        asked("b1="),
        asked("b1:laser=ttyUSB0"),
        asked("B1=ttyUSB0"),
        asked("b1=/dev/boards/b1-console"),
        asked("b1=ttyUSB0", "b2=ttyUSB0"),
        Asked(group="x y"),
    ]
    for want in wrong:
        with pytest.raises(CliError) as caught:
            install(udev.host, want, as_json=True)
        assert caught.value.code == Exit.USAGE, want
    assert not udev.root.exists(), "nothing is written before all is known to be right"


def test_check_tells_each_fault_and_what_mends_it(udev, capsys):
    want = asked("b1=ttyUSB0")
    udev.plug("ttyUSB0", 1, "OWN1")
    code, found = findings(udev, want, capsys)
    assert code == Exit.FAILED
    assert found[RULES_FILE_NAME] == (False, "is not installed", f"boardhand udev install b1=ttyUSB0 --group {GROUP}")
    install(udev.host, want, as_json=True)
    assert findings(udev, asked(), capsys)[0] == Exit.OK

    udev.flags["ttyUSB0"].pop("ID_MM_PORT_IGNORE")
    (udev.dev / "ttyUSB0").chmod(0o600)
    ok, state, do = findings(udev, asked(), capsys)[1]["b1-console"]
    assert not ok
    assert "has mode 0600" in state
    assert "ModemManager may open it: ID_MM_PORT_IGNORE not set" in state
    assert do == f"boardhand udev install --group {GROUP}"

    (udev.dev / "boards/b1-console").unlink()
    ok, state, do = findings(udev, asked(), capsys)[1]["b1-console"]
    assert state.startswith("the name is not there, though the rules give it")
    assert do == "udevadm trigger --action=change --settle /sys/class/tty/ttyUSB0"
    udev.plug("ttyUSB1", 2, "OWN2")
    (udev.dev / "boards/b1-console").symlink_to("../ttyUSB1")
    assert findings(udev, asked(), capsys)[1]["b1-console"][1].startswith("the name leads to ttyUSB1")
    install(udev.host, asked(), as_json=True)
    assert findings(udev, asked(), capsys)[0] == Exit.OK

    path = udev.root / "etc/udev/rules.d" / DEVICE_RULES_FILE_NAME
    path.write_text("# mine\n")
    assert findings(udev, asked(), capsys)[1][DEVICE_RULES_FILE_NAME][1] == "differs"


def test_a_second_adapter_with_the_name_of_the_first(udev, settings, capsys):
    """Plugged in after the rules were made: udev would give the name to whichever comes last."""
    udev.plug("ttyUSB0", 1, "TWIN")
    install(udev.host, asked("b1=ttyUSB0"), as_json=True)
    udev.plug("ttyUSB1", 2, "TWIN")
    code, found = findings(udev, asked(), capsys)
    assert code == Exit.FAILED
    assert found["b1-console"][:2] == (False, "/dev/ttyUSB0 and /dev/ttyUSB1 answer to it")
    assert found["b1-console"][2].startswith("boardhand udev install b1:console=ttyUSB0")
    install(udev.host, asked("b1=ttyUSB0"), as_json=True)
    assert "ENV{ID_PATH}" in udev.rules()
    assert findings(udev, asked(), capsys)[0] == Exit.OK


def test_hubs_are_looked_at(udev, tmp_path, capsys):
    tree = UsbHubTree(tmp_path / "hubs")
    tree.hub(tree.root_hub(), 1, serial="HUBSER1")
    host = UdevHost(udev.root, tree.root, udev.dev, udev.run)
    for number in ("001", "002"):
        node = udev.dev / "bus/usb/001" / number
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()
        node.chmod(0o664)
    switches = sorted(tree.root.rglob("disable"))
    for switch in switches:
        switch.chmod(0o664)

    def hubs() -> dict[str, tuple[bool, str]]:
        check(host, Asked(group=GROUP), None, as_json=True)
        return {f["device"]: (f["ok"], f["state"]) for f in document(capsys)["findings"] if "hub " in f["what"]}

    assert {good for good, _ in hubs().values()} == {True}
    for switch in switches:
        switch.chmod(0o644)
    assert {good for good, _ in hubs().values()} == {False}
    assert all("disable has mode 0644, and " in state for _, state in hubs().values())
    (udev.dev / "bus/usb/001/002").unlink()
    assert any("No such file" in state for _, state in hubs().values())


def test_what_the_debian_package_brought_is_right_as_it_is(udev, capsys):
    want = Asked()
    shipped = udev.root / "usr/lib/udev/rules.d"
    shipped.mkdir(parents=True)
    for name in (HUB_RULES_FILE_NAME, DEVICE_RULES_FILE_NAME):
        (shipped / name).write_text((Path(rules_devices.__file__).parent / name).read_text())
    install(udev.host, want, as_json=True)
    assert [path.name for path in (udev.root / "etc/udev/rules.d").iterdir()] == [RULES_FILE_NAME]
    found = findings(udev, want, capsys)[1]
    assert all(found[name][:2] == (True, "as it should be") for name in FILES)
    # Another group: ours in /etc come before them.
    install(udev.host, asked(), as_json=True)
    assert len(list((udev.root / "etc/udev/rules.d").iterdir())) == 3
    assert findings(udev, asked(), capsys)[0] == Exit.OK


def test_users_and_groups(udev, capsys):
    install(udev.host, asked(), as_json=True)
    assert findings(udev, asked(), capsys, "root")[1]["user root"][0]
    with pytest.raises(CliError, match="there is no user 'nobody-of-that-name'"):
        check(udev.host, asked(), "nobody-of-that-name", as_json=True)
    capsys.readouterr()
    none = Asked(group="no-such-group")
    install(udev.host, none, as_json=True)
    capsys.readouterr()
    assert check(udev.host, none, None, as_json=True) == Exit.FAILED
    said = document(capsys)["findings"]
    assert "groupadd --system no-such-group" in [found["do"] for found in said if not found["ok"]]


def test_udevs_own_checker_is_asked_where_there_is_one(udev, capsys):
    install(udev.host, asked(), as_json=True)
    udev.verifies = True
    code, found = findings(udev, asked(), capsys)
    assert (code, found["udevadm verify"][0]) == (Exit.OK, True)
    udev.broken = "verify"
    code, found = findings(udev, asked(), capsys)
    assert (code, found["udevadm verify"][:2]) == (Exit.FAILED, (False, "Failed to send reload request"))


def test_udev_that_does_not_run_is_told(udev):
    udev.broken = "control"
    with pytest.raises(CliError, match="udevadm control failed: Failed to send reload request") as caught:
        install(udev.host, asked(), as_json=True)
    assert caught.value.code == Exit.FAILED
    assert udev.rules()


def test_a_host_without_udevadm(udev, capsys):
    """As in a container: the nodes may be right, and what udev knows nobody tells."""
    udev.plug("ttyUSB0", 1, "OWN1")
    install(udev.host, asked("b1=ttyUSB0"), as_json=True)
    udev.flags.clear()
    code, found = findings(udev, asked(), capsys)
    assert code == Exit.FAILED
    assert [what for what, (ok, *_) in found.items() if not ok] == ["udev"]
    assert "in a container" in found["udev"][2]


def test_an_image_gets_files_and_nothing_runs(tmp_path, capsys):
    page = ArgumentParser()
    UDEV.options(page)
    (tmp_path / "sys/class/tty").mkdir(parents=True)
    (tmp_path / "sys/devices").mkdir()
    line = ["--root", str(tmp_path), "--sysfs", str(tmp_path / "sys")]
    assert UDEV.run(page.parse_args(["install", *line])) == Exit.OK
    assert sorted(path.name for path in (tmp_path / "etc/udev/rules.d").iterdir()) == sorted(FILES)
    assert f"they count when the system in {tmp_path} runs" in capsys.readouterr().out
    assert UDEV.run(page.parse_args(["check", *line])) == Exit.OK
    assert UDEV.run(page.parse_args(["show", *line])) == Exit.OK
    assert UDEV.run(page.parse_args(["hubs", "--group", "farm"])) == Exit.OK
    assert 'GROUP="farm"' in capsys.readouterr().out
    with pytest.raises(CliError, match="is no folder"):
        UDEV.run(page.parse_args(["install", "--root", str(tmp_path / "none")]))
    with pytest.raises(CliError, match="no sysfs"):
        UDEV.run(page.parse_args(["show", "--sysfs", str(tmp_path / "none")]))


def test_a_folder_that_cannot_be_written(udev):
    (udev.root / "etc").mkdir(parents=True)
    (udev.root / "etc/udev").touch()
    with pytest.raises(CliError) as caught:
        install(udev.host, asked(), as_json=True)
    assert caught.value.code == Exit.FAILED
    assert "etc/udev/rules.d" in caught.value.message


def test_a_program_that_is_not_there():
    done = run_program(["no-such-program-of-boardhand"])
    assert (done.returncode, done.stderr) == (127, "no-such-program-of-boardhand is not there")
