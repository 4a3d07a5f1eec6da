"""Power devices on a real USB bus whose firmware is ours: the one-character cable (CDC-ACM) and a HID relay."""

import pytest


@pytest.fixture
def cable(farm, files):
    """What the cable's firmware says of itself."""
    return lambda: farm.state(files["cable"])


@pytest.fixture
def relay(farm, files):
    return lambda: farm.state(files["relay"])


def test_the_cable_switches(farm, cable):
    for action in ("on", "off", "on"):
        said = farm.power("cabled", action)
        assert (said["ok"], said["power"]) == (True, action)
        assert cable()["power"] is (action == "on")
        assert said["took_ms"] < 30_000


def test_a_cable_that_vanishes_in_the_middle_and_returns_is_verified(farm, cable, files):
    assert farm.power("cabled", "on")["ok"]
    heard = len(cable()["heard"])
    farm.guest.write(files["cable"] + ".vanish", "0.7")
    said = farm.power("cabled", "off")
    assert (said["ok"], said["power"]) == (True, "off"), said
    assert cable()["power"] is False
    # It was told once: a cable that came back is asked, not told again. A digit after it may set the LEDs.
    digits = [each for each in cable()["heard"][heard:] if each != "?"]
    assert digits.count(digits[0]) == 1, digits


def test_a_cable_that_stays_away_is_one_error_in_time(farm, cable, files):
    assert farm.power("cabled", "off")["ok"]
    farm.guest.write(files["cable"] + ".vanish", "12")
    said = farm.power("cabled", "on")
    assert (said["ok"], said["power"], said["error"]["kind"]) == (False, "unknown", "unreachable")
    assert said["error"]["message"].startswith("cabled: cable:1: ")
    assert said["took_ms"] < 11_000
    farm.until("the cable", lambda: farm.exists("/dev/boards/cabled-cable"))
    assert farm.power("cabled", "off")["ok"]


def test_a_hid_relay_switches_and_reads_back(farm, relay):
    for action, bits in (("on", 0b0010), ("off", 0), ("on", 0b0010), ("off", 0)):
        said = farm.power("relayed", action)
        assert (said["ok"], said["power"]) == (True, action)
        assert relay()["channels"] == bits
        assert said["took_ms"] < 30_000
    assert relay()["reports"][-2:] == ["ff02000000000000", "fd02000000000000"]


def test_a_relay_that_vanishes_in_the_middle_and_returns_is_verified(farm, relay, files):
    farm.guest.write(files["relay"] + ".vanish", "0.7")
    said = farm.power("relayed", "on")
    assert (said["ok"], said["power"]) == (True, "on"), said
    assert relay()["channels"] == 0b0010
    assert farm.power("relayed", "off")["ok"]
