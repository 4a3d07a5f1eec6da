"""Which names the rules file gets. The trees are those of the kernel; udev's part is a table of properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udev.rules import Named, Role, RuleError, read_names, udev_rules
from udev.rules_plan import Plan, Seen, Wanted, make_plan, own_name, stable_terms
from udev.serial_ports import serial_ports

PATH = "pci-0000:00:14.0-usb-0:1.{port}:1.0"
BY_ID = "/dev/serial/by-id/usb-{serial}-if00-port0"


def by_path(port: int, number: str = "-port0") -> str:
    return f"/dev/serial/by-path/{PATH.format(port=port)}{number}"


class Host:
    """Adapters in a tree, and what udev makes of their strings."""

    def __init__(self, sysfs):
        self.sysfs = sysfs
        self.properties = {}
        self.links = {}

    def plug(self, name, port, serial, ids="0403:6001"):
        self.sysfs.usb_serial(name, f"1-1.{port}", ids, serial)
        self.properties[name] = {"ID_BUS": "usb", "ID_SERIAL": f"FTDI_{serial}"}

    def seen(self):
        ports = {port.name: port for port in serial_ports(self.sysfs.root)}
        return Seen(ports, self.properties, lambda device: self.links.get(device, device.removeprefix("/dev/")))


@pytest.fixture
def host(sysfs):
    return Host(sysfs)


def plan(host, *wanted, installed=None, fresh=False) -> Plan:
    return make_plan(
        [Wanted("b1", Role.CONSOLE, device) for device in wanted], host.seen(), installed or {}, fresh=fresh
    )


def test_places_and_names_become_comparisons_without_the_adapter(host):
    (place,) = plan(host, by_path(3)).names
    assert place.terms == (("ENV{ID_PATH}", PATH.format(port=3)), ("ENV{.ID_PORT}", "0"))
    (name,) = plan(host, BY_ID.format(serial="FTDI_A5XK")).names
    assert dict(name.terms) == {
        "ENV{ID_BUS}": "usb",
        "ENV{ID_SERIAL}": "FTDI_A5XK",
        "ENV{ID_USB_INTERFACE_NUM}": "00",
        "ENV{.ID_PORT}": "0",
    }
    host.plug("ttyUSB0", 3, "A5XK")
    assert plan(host, by_path(3)).names == [place], "the same with the adapter"
    assert plan(host, BY_ID.format(serial="FTDI_A5XK")).names == [name]
    assert [port.name for port in host.seen().selected(name.terms)] == ["ttyUSB0"]


@pytest.mark.parametrize("revision", ["v2", "v3"])
def test_the_newer_name_of_a_place_is_the_same_place(revision):
    newer = by_path(3).replace("-usb-", f"-usb{revision}-")
    assert stable_terms(newer) == stable_terms(by_path(3))


def test_an_acm_place_has_no_port_number():
    assert stable_terms(by_path(2, "")) is not None
    assert stable_terms(by_path(2, ""))[0] == (("ENV{ID_PATH}", PATH.format(port=2)),)


def test_a_name_that_two_adapters_give_themselves_is_refused_with_both_places(host):
    host.plug("ttyUSB0", 1, "SAME")
    host.plug("ttyUSB1", 2, "SAME")
    with pytest.raises(RuleError, match="more than one adapter has this name") as caught:
        plan(host, BY_ID.format(serial="FTDI_SAME"))
    assert f"{by_path(1)} (ttyUSB0) or {by_path(2)} (ttyUSB1)" in str(caught.value)


def test_a_name_without_a_serial_number_is_refused_with_its_place(host):
    host.plug("ttyUSB0", 1, None)
    with pytest.raises(RuleError, match="no serial number of its own") as caught:
        plan(host, BY_ID.format(serial="FTDI_None"))
    assert by_path(1) in str(caught.value)


def test_what_a_maker_burns_into_each_piece_is_refused_even_unplugged(host):
    with pytest.raises(RuleError, match="every piece of its maker"):
        plan(host, BY_ID.format(serial="Silicon_Labs_CP2102_USB_to_UART_Bridge_Controller_0001"))


def test_a_number_is_looked_up_once_and_told(host):
    host.plug("ttyUSB0", 1, "OWN1")
    host.plug("ttyUSB1", 2, "OWN2")
    first = plan(host, "/dev/ttyUSB0")
    assert dict(first.names[0].terms)["ATTRS{serial}"] == "OWN1"
    assert "changes with the order of plugging; write /dev/boards/b1-console" in first.notices[0]
    installed = {entry.symlink: entry for entry in first.names}
    again = plan(host, "/dev/ttyUSB1", installed=installed)
    assert again.names == first.names, "the number moved on, the name did not"
    assert dict(plan(host, "/dev/ttyUSB1", installed=installed, fresh=True).names[0].terms)["ATTRS{serial}"] == "OWN2"
    insisted = [Wanted("b1", Role.CONSOLE, "ttyUSB1", insisted=True)]
    assert dict(make_plan(insisted, host.seen(), installed).names[0].terms)["ATTRS{serial}"] == "OWN2"


def test_an_unplugged_number_is_told_and_what_was_installed_stays(host):
    nothing = plan(host, "/dev/ttyUSB0")
    assert nothing.names == []
    assert "/dev/ttyUSB0 is not plugged in" in nothing.notices[0]
    old = Named("b1", Role.CONSOLE, (("ATTRS{serial}", "OWN1"),), "x")
    assert plan(host, "/dev/ttyUSB0", installed={old.symlink: old}).names == [old]
    own = plan(host, "/dev/boards/b1-console", installed={old.symlink: old}, fresh=True)
    assert own.names == [old], "nothing else tells which port it is"


def test_a_link_of_somebody_elses_is_followed(host):
    host.plug("ttyUSB0", 1, "OWN1")
    host.links["/dev/my-cable"] = "ttyUSB0"
    assert dict(plan(host, "/dev/my-cable").names[0].terms)["ATTRS{serial}"] == "OWN1"


def test_adapters_without_own_serial_are_known_by_place_and_that_is_said(host):
    host.plug("ttyUSB0", 1, None)
    found = plan(host, "/dev/ttyUSB0")
    assert dict(found.names[0].terms)["ENV{ID_PATH}"] == PATH.format(port=1)
    assert any("no serial number: it must stay where it is" in notice for notice in found.notices)


def test_names_from_before_stay_until_their_port_is_given_away_or_fresh(host):
    host.plug("ttyUSB0", 1, "OWN1")
    host.plug("ttyUSB1", 2, "OWN2")
    words = [Wanted("b1", Role.CONSOLE, "ttyUSB0"), Wanted("b2", Role.CONSOLE, "ttyUSB1")]
    installed = {entry.symlink: entry for entry in make_plan(words, host.seen(), {}).names}
    assert {entry.board for entry in make_plan([], host.seen(), installed).names} == {"b1", "b2"}
    assert make_plan([], host.seen(), installed, fresh=True).names == []
    moved = make_plan([Wanted("b3", Role.CONSOLE, by_path(1))], host.seen(), installed)
    assert {entry.board for entry in moved.names} == {"b2", "b3"}
    assert moved.notices == ["/dev/boards/b1-console goes: its port is now /dev/boards/b3-console"]


def test_one_port_for_two_and_two_ports_for_one(host):
    host.plug("ttyUSB0", 1, "OWN1")
    with pytest.raises(RuleError, match="/dev/ttyUSB0 would be both"):
        make_plan([Wanted("b1", Role.CONSOLE, by_path(1)), Wanted("b2", Role.CONSOLE, "/dev/ttyUSB0")], host.seen(), {})
    with pytest.raises(RuleError, match="two ports are the console of board b1"):
        plan(host, by_path(1), by_path(2))


def test_what_was_written_is_read_back_and_the_plan_is_the_same(host):
    """Nothing that is installed twice differs the second time, whatever is plugged in."""
    host.plug("ttyUSB0", 1, None)
    host.plug("ttyUSB1", 2, "OWN2")
    words = [
        Wanted("b1", Role.CONSOLE, "/dev/ttyUSB0"),
        Wanted("b2", Role.CABLE, "/dev/ttyUSB1"),
        Wanted("b3", Role.CONSOLE, by_path(7)),
    ]
    text = udev_rules(make_plan(words, host.seen(), {}).names)
    nobody = Seen({}, {}, lambda _device: None)
    for seen in (host.seen(), nobody):
        assert udev_rules(make_plan(words, seen, read_names(text)).names) == text


@given(st.text(max_size=60) | st.text(alphabet='usb-if0port"$%\\\n_', max_size=40))
def test_no_device_name_can_write_a_rule(text):
    nobody = Seen({}, {}, lambda _device: None)
    for device in (f"/dev/serial/by-path/{text}", f"/dev/serial/by-id/usb-{text}-if00-port0", text):
        try:
            written = udev_rules(make_plan([Wanted("b1", Role.CONSOLE, device)], nobody, {}).names)
        except RuleError:
            continue
        assert written.count("\n") in {6, 8}
        for line in written.splitlines()[5:-1]:
            assert line.startswith(("# b1, console: ", 'ENV{ID_PATH}=="', 'ENV{ID_BUS}=="usb", '))
            assert not set(line) & set("$%*?|\\")


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("/dev/boards/a-b-console", ("a-b", Role.CONSOLE)),
        ("/dev/boards/rack-power", ("rack", Role.POWER)),
        ("/dev/boards/x", None),
        ("/dev/ttyUSB0", None),
    ],
)
def test_our_own_names(device, name):
    assert own_name(device) == name
