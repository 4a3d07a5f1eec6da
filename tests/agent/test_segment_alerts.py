"""What the watch of the segment finds, as alerts that begin, grow and end."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.segment_alerts import ENDS_AFTER_S, MAX_TOLD, NAMES, SegmentAlerts
from agent.unit import Moment
from netboot.dhcp_events import AddressConflict, ClientTooFast, DuplicateMac, OtherAddress, RogueDhcpServer
from wire.payloads import encode

MAC = "52:54:00:77:00:01"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> Moment:
    return Moment(seconds, START + timedelta(seconds=seconds))


@pytest.fixture
def alerts():
    return SegmentAlerts(["b1"])


def rogue(server="10.77.0.9", *, present=True):
    return RogueDhcpServer("br0", server, "52:54:00:66:00:09", present)


def only(changes):
    (change,) = changes
    return change


@pytest.mark.parametrize(
    ("event", "place", "words"),
    [
        (rogue(), (None, "rogue-dhcp"), "10.77.0.9 (MAC 52:54:00:66:00:09)"),
        (DuplicateMac("br0", MAC, "b1", "UUIDs a and b"), ("b1", "duplicate-mac"), f"MAC {MAC} of board b1: UUIDs"),
        (DuplicateMac("br0", MAC, None, "why"), (None, "duplicate-mac"), MAC),
        (DuplicateMac("br0", MAC, "not-ours", "why"), (None, "duplicate-mac"), MAC),
        (AddressConflict("br0", "10.77.0.11", MAC, "b1"), ("b1", "address-conflict"), f"{MAC} uses 10.77.0.11"),
        (AddressConflict("br0", "10.77.0.1", MAC, None), (None, "address-conflict"), "this agent"),
        (AddressConflict("br0", "10.77.0.11", "", "b1"), ("b1", "address-conflict"), "somebody else uses"),
        (OtherAddress("br0", "10.77.0.99", MAC, "b1", "10.77.0.11"), ("b1", "other-address"), "10.77.0.11"),
    ],
)
def test_each_kind(alerts, event, place, words):
    change = only(alerts.heard(event, at(5)))
    assert ((change.board, change.name), change.is_new) == (place, True)
    assert words in change.alert.what
    assert change.alert.do
    assert change.alert.since == at(5).wall
    assert change.details == {"name": place[1], "what": change.alert.what}


def test_a_client_in_a_loop_is_for_the_log(alerts):
    assert alerts.heard(ClientTooFast("br0", MAC), at(0)) == []


def test_a_repetition_changes_nothing_and_another_finding_is_added(alerts):
    alerts.heard(rogue(), at(0))
    assert alerts.heard(rogue(), at(10)) == []
    change = only(alerts.heard(rogue("10.77.0.8"), at(20)))
    assert not change.is_new
    assert change.alert.since == at(0).wall
    assert change.alert.what.count("another DHCP server") == 2


def test_what_is_not_repeated_ends(alerts):
    alerts.heard(rogue(), at(0))
    alerts.heard(rogue("10.77.0.8"), at(100))
    assert "10.77.0.9" not in only(alerts.tick(at(ENDS_AFTER_S))).alert.what
    change = only(alerts.tick(at(ENDS_AFTER_S + 100)))
    assert (change.alert, change.details) == (None, {"name": "rogue-dhcp", "cleared": True})
    assert alerts.tick(at(ENDS_AFTER_S + 200)) == []


def test_a_server_that_is_gone_ends_it_at_once(alerts):
    assert alerts.heard(rogue(present=False), at(0)) == []
    alerts.heard(rogue(), at(1))
    assert only(alerts.heard(rogue(present=False), at(2))).alert is None


def test_a_hundred_servers_fit_one_payload(alerts):
    for number in range(100):
        change = only(alerts.heard(rogue(f"10.77.0.{number}"), at(number)))
    assert f"and {100 - MAX_TOLD} more" in change.alert.what
    assert len(encode(change.alert)) < 4096


def test_an_earlier_lifes_alerts_are_cleared_but_not_those_of_this(alerts):
    alerts.heard(rogue(), at(0))
    cleared = {(change.board, change.name) for change in alerts.none_yet()}
    assert cleared == {(board, name) for board in (None, "b1") for name in NAMES} - {(None, "rogue-dhcp")}
    assert all(change.alert is None and not change.is_new for change in alerts.none_yet())
