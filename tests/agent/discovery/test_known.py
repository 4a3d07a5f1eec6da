"""Which devices settings name already."""

import pytest

from agent.discovery.known import SOME_DCTTECH, known_devices, tty

NAMES = {"pdu.lab.test": ["192.0.2.7", "2001:db8::7"], "192.0.2.8": ["192.0.2.8"], "127.0.0.1": ["127.0.0.1"]}


@pytest.mark.parametrize(
    ("table", "identities"),
    [
        ({"driver": "usb_hub", "hub": "pci-0000:00:14.0-usb-0:1"}, {"hub:pci-0000:00:14.0-usb-0:1"}),
        ({"driver": "snmp", "host": "pdu.lab.test"}, {"snmp:192.0.2.7:161", "snmp:2001:db8::7:161"}),
        ({"driver": "snmp", "host": "192.0.2.8", "port": 1161}, {"snmp:192.0.2.8:1161"}),
        ({"driver": "snmp", "host": "nobody.test"}, set()),
        ({"driver": "tasmota", "topic": "attic"}, {"tasmota:attic"}),
        ({"driver": "shelly", "url": "http://192.0.2.8"}, {"http:192.0.2.8:80", "ip:192.0.2.8"}),
        (
            {"driver": "netio", "url": "https://pdu.lab.test/x"},
            {"http:192.0.2.7:443", "http:2001:db8::7:443", "ip:192.0.2.7", "ip:2001:db8::7"},
        ),
        ({"driver": "rest", "url": "http://127.0.0.1:8080"}, {"http:127.0.0.1:8080"}),
        ({"driver": "rest", "url": "http://[bad"}, set()),
        ({"driver": "hid_relay"}, {"usb:hid_relay:dcttech:"}),
        ({"driver": "hid_relay", "path": "1-1.4"}, {"usb:hid_relay:1-1.4"}),
        ({"driver": "hid_relay", "serial": "AB"}, {"usb:hid_relay:AB", SOME_DCTTECH}),
        ({"driver": "hid_relay", "protocol": "lcus", "outlets": 2}, {"usb:hid_relay:lcus:"}),
        ({"driver": "ykush"}, {"usb:ykush::"}),
        ({"driver": 5, "topic": ["x"]}, set()),
    ],
)
def test_a_controller(table, identities):
    assert known_devices({"controllers": {"one": table}}, lambda host: NAMES.get(host, [])) == identities


def test_a_device_is_the_same_by_every_link_to_it(tmp_path):
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "by-id").symlink_to("ttyUSB0")
    tables = {
        "controllers": {"cable": {"driver": "power_cable", "device": str(tmp_path / "by-id")}},
        "boards": {"a": {"console": "/dev/none"}, "b": {"console": {"device": "tcp:host:1"}}, "c": 3},
    }
    assert {tty(str(tmp_path / "ttyUSB0")), "tty:/dev/none"} < known_devices(tables)


@pytest.mark.parametrize("tables", [{}, {"controllers": 3}, {"controllers": []}, {"boards": "x"}])
def test_what_is_no_table_names_nothing(tables):
    assert known_devices(tables) == frozenset()
