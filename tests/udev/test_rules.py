"""The rules are read back by a small reader of udev(7)'s syntax, which then finds the ports as udev would."""

import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatchcase
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udev.rules import (
    RULES_FILE_NAME,
    Named,
    NamedPort,
    Role,
    RuleError,
    facts,
    known_by_serial,
    read_names,
    selects,
    udev_rules,
)
from udev.rules_devices import device_rules, hub_rules
from udev.serial_ports import SerialPort, UsbAdapter, serial_ports

TERM = re.compile(r'([A-Z_]+)(?:\{([^{}"]+)\})?(==|!=|\+=|=)"([^"\n\\]*)"')
NESTING = ("ATTRS", "KERNELS", "SUBSYSTEMS")


def read_rules(text: str) -> list[list[tuple[str, str, str, str]]]:
    """Every rule as a list of (key, attribute, operator, value); a line that is no rule fails the test."""
    assert text.endswith("\n")
    rules = []
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("#"):
            continue
        assert line.isprintable(), f"{line!r}: control characters"
        terms = line.split('", ')
        terms = [term if number == len(terms) - 1 else term + '"' for number, term in enumerate(terms)]
        found = [TERM.fullmatch(term) for term in terms]
        assert all(found), f"{line!r} is no rule"
        rules.append([(m[1], m[2] or "", m[3], m[4]) for m in found])
    return rules


def naming_rules(text: str) -> list[list[tuple[str, str, str, str]]]:
    return [rule for rule in read_rules(text) if any(key == "SYMLINK" for key, *_ in rule)]


def names_given(text: str, root: Path, port: SerialPort) -> list[str]:
    """The symlinks that these rules give to `port`, decided from the tree below `root` as udev decides."""
    environment = {"ID_PATH": port.id_path or ""}
    if port.usb is not None:
        environment["ID_USB_INTERFACE_NUM"] = port.usb.interface
    if port.port_number is not None:
        environment[".ID_PORT"] = str(port.port_number)
    tty = (root / "class/tty" / port.name).resolve()
    parents = [tty, *(p for p in tty.parents if p.is_relative_to(root / "devices"))]
    names = []
    for rule in naming_rules(text):
        matches = [term for term in rule if term[2] == "=="]
        own = all(
            fnmatchcase(environment.get(attribute, "") if key == "ENV" else port.name, value)
            for key, attribute, _, value in matches
            if key not in NESTING
        )
        nested = [term for term in matches if term[0] in NESTING]
        if own and any(all(_parent_meets(parent, term) for term in nested) for parent in parents):
            names += [value for key, _, _, value in rule if key == "SYMLINK"]
    return names


def _parent_meets(parent: Path, term: tuple[str, str, str, str]) -> bool:
    key, attribute, _, value = term
    if key == "KERNELS":
        return fnmatchcase(parent.name, value)
    file = parent / attribute
    return file.is_file() and fnmatchcase(file.read_text().rstrip(), value)


def test_each_rule_finds_its_own_port_and_no_other(sysfs, tmp_path):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "0403:6001", "OWN 1")
    sysfs.usb_serial("ttyUSB1", "1-1.2", "1a86:7523", "12345")
    sysfs.usb_serial("ttyUSB2", "1-1.3", "1a86:7523", "12345")
    sysfs.usb_serial("ttyUSB3", "1-1.4", "1a86:7523", None)
    sysfs.usb_serial("ttyUSB4", "1-1.5", "0403:6011", "QUAD", interface=0)
    sysfs.usb_serial("ttyUSB5", "1-1.5", "0403:6011", "QUAD", interface=1)
    sysfs.usb_serial("ttyUSB6", "1-1.6", "9710:7840", "TWO", port_number=0)
    sysfs.usb_serial("ttyUSB7", "1-1.6", "9710:7840", "TWO", port_number=1)
    sysfs.usb_serial("ttyUSB8", "1-1.7", "10c4:ea60", "0001")
    sysfs.usb_acm("ttyACM0", "1-1.8", "2e8a:000a", 'E6"60*')
    sysfs.device("platform/fe201000.serial", subsystem="amba", driver="uart-pl011")
    sysfs.tty("platform/fe201000.serial", "ttyAMA0")
    ports = serial_ports(sysfs.root)
    assert len(ports) == 11
    named = [NamedPort(f"b-{port.name.lower()}", Role.CONSOLE, port) for port in ports]
    text = udev_rules(named)
    for entry in named:
        assert names_given(text, sysfs.root, entry.port) == [entry.symlink]
    # Our own reading of the comparisons agrees with the one above.
    read = read_names(text)
    assert read == {entry.symlink: entry.known() for entry in named}
    for entry in named:
        told = [name for name, known in read.items() if selects(known.terms, facts(entry.port, {}))]
        assert told == [entry.symlink]
    by_serial = {port.name for port in ports if known_by_serial(port)}
    assert by_serial == {"ttyUSB0", "ttyUSB4", "ttyUSB5", "ttyUSB6", "ttyUSB7"}
    udev_accepts(text, tmp_path)


def test_a_cable_known_by_its_serial_number_keeps_its_name_in_another_port(sysfs, tmp_path):
    sysfs.usb_serial("ttyUSB0", "1-1.1", "0403:6001", "BRD1")
    text = udev_rules([NamedPort("board1", Role.CABLE, serial_ports(sysfs.root)[0])])
    moved = type(sysfs)(tmp_path / "later")
    moved.usb_serial("ttyUSB5", "2-4.3", "0403:6001", "BRD1")
    moved.usb_serial("ttyUSB6", "2-4.4", "0403:6001", "BRD2")
    assert [names_given(text, moved.root, port) for port in serial_ports(moved.root)] == [["boards/board1-cable"], []]


def udev_accepts(text: str, folder: Path) -> None:
    """Asks udev itself where it has a checker (systemd 254 and later); the reader above has judged it anyway."""
    udevadm = shutil.which("udevadm")
    if udevadm is None:
        return
    listing = subprocess.run([udevadm, "--help"], capture_output=True, text=True, timeout=60, check=False).stdout
    if re.search(r"^\s+verify\b", listing, re.MULTILINE):
        file = folder / RULES_FILE_NAME
        file.write_text(text)
        done = subprocess.run([udevadm, "verify", str(file)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_every_rule_does(sysfs):
    sysfs.usb_serial("ttyUSB0", "1-1", "0403:6001", "A")
    (rule,) = naming_rules(udev_rules([NamedPort("b1", Role.CONSOLE, serial_ports(sysfs.root)[0])], group="farm"))
    assert [term for term in rule if term[2] != "=="] == [
        ("SYMLINK", "", "+=", "boards/b1-console"),
        ("ENV", "ID_MM_DEVICE_IGNORE", "=", "1"),
        ("ENV", "ID_MM_PORT_IGNORE", "=", "1"),
        ("GROUP", "", "=", "farm"),
        ("MODE", "", "=", "0660"),
    ]


def test_the_text_does_not_depend_on_the_order(sysfs):
    for number in range(3):
        sysfs.usb_serial(f"ttyUSB{number}", f"1-{number + 1}", "0403:6001", f"S{number}")
    named = [NamedPort(f"b{n}", Role.CONSOLE, port) for n, port in enumerate(serial_ports(sysfs.root))]
    assert len({udev_rules(order) for order in permutations(named)}) == 1


def adapter(serial: str | None, *, name="ttyUSB0", id_path: str | None = "pci-0000:00:14.0-usb-0:1:1.0", **usb):
    parts = {"vendor": "0403", "product": "6001", "interface": "00", "port_path": "1-1"} | usb
    return SerialPort(
        name=name, driver="x", hardware="1-1:1.0", usb=UsbAdapter(serial=serial, **parts), id_path=id_path
    )


def test_refusals_name_what_is_wrong():
    port, other = adapter("A"), adapter("B", name="ttyUSB1")
    with pytest.raises(RuleError, match="'Board 1' is no board id"):
        udev_rules([NamedPort("Board 1", Role.CONSOLE, port)])
    with pytest.raises(RuleError, match="two ports are the console of board b1"):
        udev_rules([NamedPort("b1", Role.CONSOLE, port), NamedPort("b1", Role.CONSOLE, other)])
    with pytest.raises(RuleError, match="would be both boards/b1-cable and boards/b1-console"):
        udev_rules([NamedPort("b1", Role.CONSOLE, port), NamedPort("b1", Role.CABLE, port)])
    with pytest.raises(RuleError, match="is no group name"):
        udev_rules([], group='x", RUN+="sh')
    with pytest.raises(RuleError, match="'ttyUSB0' has no serial number of its own"):
        udev_rules([NamedPort("b1", Role.CONSOLE, adapter(None, id_path=None))])


hostile = st.text(max_size=40) | st.text(alphabet='a1"\\\n\r*?[]|${}%, =+#\x00', max_size=40)


@given(serial=hostile)
@example(serial='x", RUN+="/bin/sh -c id')
@example(serial='x\nRUN+="/bin/sh"')
@example(serial="*")
@example(serial="a|b")
@example(serial="$kernel")
@example(serial="trailing\\")
@example(serial=" ")
def test_no_serial_number_can_write_a_rule(serial):
    """Whatever the adapter says of itself, one rule comes out, and its comparisons are with literal text."""
    (rule,) = naming_rules(udev_rules([NamedPort("b1", Role.CONSOLE, adapter(serial))]))
    assert [key for key, _, operator, _ in rule if operator != "=="] == ["SYMLINK", "ENV", "ENV", "GROUP", "MODE"]
    for _key, attribute, operator, value in rule:
        assert not set(value) & set('"*?[]|\\$%\n')
        if attribute == "serial":
            assert (operator, value) == ("==", serial)


@given(text=hostile, part=st.sampled_from(["vendor", "product", "interface", "id_path", "name"]))
def test_nothing_else_from_sysfs_can_write_a_rule_either(text, part):
    port = adapter("A" if part != "id_path" else None, **{part: text})
    try:
        rules = naming_rules(udev_rules([NamedPort("b1", Role.CONSOLE, port)]))
    except RuleError:
        return
    assert [key for key, _, operator, _ in rules[0] if operator != "=="] == ["SYMLINK", "ENV", "ENV", "GROUP", "MODE"]
    assert len(rules) == 1


@given(board=hostile)
def test_no_board_name_leaves_the_folder_of_boards(board):
    try:
        text = udev_rules([NamedPort(board, Role.CONSOLE, adapter("A"))])
    except RuleError:
        return
    (rule,) = naming_rules(text)
    (link,) = (value for key, _, _, value in rule if key == "SYMLINK")
    assert re.fullmatch(r"boards/[a-z0-9-]+-console", link)


def test_hub_rules_open_the_ports_of_hubs_and_nothing_else() -> None:
    rules = read_rules(hub_rules(group="lab"))
    labels = {value for rule in rules for key, _, _, value in rule if key == "LABEL"}
    assert {value for rule in rules for key, _, _, value in rule if key == "GOTO"} == labels
    acting = [rule for rule in rules if any(key in {"GROUP", "MODE", "RUN"} for key, *_ in rule)]
    assert len(acting) == 2
    assert all(("DRIVER", "", "==", "hub") in rule or ("ATTR", "bDeviceClass", "==", "09") in rule for rule in acting)
    command = next(value for rule in acting for key, _, _, value in rule if key == "RUN")
    assert "chgrp lab $sys$devpath/*-port*/disable; chmod 0664 $sys$devpath/*-port*/disable" in command


def test_hub_rules_run_what_they_say(tmp_path: Path) -> None:
    """The command itself, as udev hands it to a shell, on a folder that plays the hub's interface."""
    port = tmp_path / "devices/1-1:1.0/1-1-port1"
    port.mkdir(parents=True)
    (port / "disable").write_text("0\n")
    (port / "disable").chmod(0o644)
    group = subprocess.run(["id", "-gn"], capture_output=True, text=True, check=True).stdout.strip()
    rule = next(rule for rule in read_rules(hub_rules(group=group)) if any(key == "RUN" for key, *_ in rule))
    command = next(value for key, _, _, value in rule if key == "RUN")
    told = command.replace("$sys", str(tmp_path)).replace("$devpath", "/devices/1-1:1.0")
    subprocess.run(shlex.split(told), check=True)
    assert (port / "disable").stat().st_mode & 0o777 == 0o664
    subprocess.run(shlex.split(told.replace("1-1:1.0", "none")), check=True, capture_output=True)


@pytest.mark.parametrize("group", ["", "two words", 'x"', "a;b"])
@pytest.mark.parametrize("rules", [hub_rules, device_rules])
def test_shipped_rules_take_group_names_only(group: str, rules) -> None:
    with pytest.raises(RuleError, match="no group name"):
        rules(group=group)


@given(text=hostile)
@example(text='# b1, console: x.\nATTRS{serial}=="*", SYMLINK+="boards/b1-console"')
@example(text='ATTRS{serial}=="a", RUN+="/bin/sh", SYMLINK+="boards/b1-console"')
def test_what_is_read_back_from_a_file_is_safe_to_write_again(text: str) -> None:
    for entry in read_names(text + '\nKERNEL=="ttyS0", SYMLINK+="boards/b2-cable"\n').values():
        try:
            (rule,) = naming_rules(udev_rules([entry]))
        except RuleError:
            continue
        assert [key for key, _, operator, _ in rule if operator != "=="] == ["SYMLINK", "ENV", "ENV", "GROUP", "MODE"]
        assert all(not set(value) & set('"*?[]|\\$%\n') for *_, value in rule)


@given(value=hostile)
def test_no_comparison_can_be_smuggled_in(value: str) -> None:
    """Even from whoever hands over the comparisons themselves."""
    try:
        text = udev_rules([Named("b1", Role.CONSOLE, (("ENV{ID_PATH}", value),), "x")])
    except RuleError:
        return
    (rule,) = naming_rules(text)
    assert rule[0] == ("ENV", "ID_PATH", "==", value)
