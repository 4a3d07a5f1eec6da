"""Settings of controllers and feeds: what is taken, and what is refused with a message that helps."""

import pytest
from pydantic import TypeAdapter, ValidationError

from agent.power.driver_kind import ControllerSettings
from agent.power.feed import OutletRef, feed_power
from agent.power.kinds.command import CommandSettings
from agent.power.kinds.snmp import SnmpSettings
from agent.power.settings import BoardFeed
from wire.phases import Power

ANY = TypeAdapter(ControllerSettings)


def test_the_driver_chooses_the_model():
    snmp = ANY.validate_python({"driver": "snmp", "host": "pdu", "community_env": "PDU"})
    command = ANY.validate_python({"driver": "command", "on": ["a"], "off": ["b", "{outlet}"]})
    assert isinstance(snmp, SnmpSettings)
    assert isinstance(command, CommandSettings)
    assert (snmp.port, snmp.version, snmp.family) == (161, "2c", "auto")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"driver": "ipmi"}, "ipmi"),
        ({"host": "pdu"}, "driver"),
        ({"driver": "snmp", "host": "pdu", "community_env": "X", "comunity": "y"}, "comunity"),
        ({"driver": "snmp", "host": "pdu", "community_env": "X", "port": 70000}, "port"),
        ({"driver": "command", "on": [], "off": ["x"]}, "on"),
        ({"driver": "command", "on": "switch on", "off": ["x"]}, "on"),
        ({"driver": "qmp"}, "socket"),
        ({"driver": "serial_cable", "device": ""}, "device"),
        ({"driver": "serial_cable", "device": "x", "reply_timeout_s": float("nan")}, "reply_timeout_s"),
    ],
)
def test_what_cannot_be_names_the_key(settings, text):
    with pytest.raises(ValidationError, match=text):
        ANY.validate_python(settings)


@pytest.mark.parametrize("outlet", ["rack", "rack:", ":1", "Rack:1", "rack: 1", ""])
def test_an_outlet_is_controller_and_outlet(outlet):
    with pytest.raises(ValidationError, match="write controller:outlet"):
        BoardFeed(outlets=[outlet])


def test_an_outlet_may_hold_colons():
    assert BoardFeed(outlets=["rack:1:2"]).refs == (OutletRef("rack", "1:2"),)


def test_an_outlet_stands_once_in_a_feed():
    with pytest.raises(ValidationError, match="stands twice"):
        BoardFeed(outlets=["rack:1", "rack:1"])


@pytest.mark.parametrize(
    ("states", "power"),
    [
        ([Power.ON, Power.ON], Power.ON),
        ([Power.OFF], Power.OFF),
        ([Power.ON, Power.OFF], Power.UNKNOWN),
        ([Power.OFF, Power.ON], Power.UNKNOWN),
        ([Power.OFF, Power.UNKNOWN], Power.UNKNOWN),
        ([], Power.UNKNOWN),
    ],
)
def test_a_feed_is_only_what_all_its_outlets_are(states, power):
    assert feed_power(states) is power
