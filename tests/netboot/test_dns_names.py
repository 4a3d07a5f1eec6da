"""Decisions about names without a server: a small DNS of our own that keeps RFC 2136's rules for prerequisites."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dns_exchange import answers, judged_answer
from netboot.dns_names import (
    FIRST_RETRY_S,
    MAX_RETRY_S,
    REFRESH_S,
    TAKEN_RETRY_S,
    DnsNames,
    DnsStateError,
)
from netboot.dns_records import ADVICE, Answer, Kind, Trouble, Verdict, ZoneSettings, entries_of, judged
from wire.names import ID_PATTERN

SETTINGS = ZoneSettings("desk", "Boards.Test", ("77.10.in-addr.arpa", "10.in-addr.arpa"), 60)
RENAMED = ZoneSettings("bench", "boards.test", ("77.10.in-addr.arpa",), 60)
DONE = Answer(Verdict.DONE)
DEAD = Answer(Verdict.FAILED, Trouble.UNREACHABLE)


class SmallDns:
    """Names to record sets, changed by wire messages as RFC 2136, section 3 says."""

    def __init__(self):
        self.sets = {}

    def take(self, wire):
        message = dns.message.from_wire(wire)
        for rrset in message.prerequisite:
            rcode = self._unmet(rrset)
            if rcode is not None:
                return rcode
        for rrset in message.update:
            key = (rrset.name, rrset.rdtype)
            if rrset.deleting == dns.rdataclass.ANY:
                self.sets.pop(key, None)
            else:
                self.sets.setdefault(key, set()).update(rdata.to_text() for rdata in rrset)
        return dns.rcode.NOERROR

    def _unmet(self, rrset):
        key = (rrset.name, rrset.rdtype)
        if rrset.deleting == dns.rdataclass.NONE:
            if rrset.rdtype == dns.rdatatype.ANY:
                return dns.rcode.YXDOMAIN if any(name == rrset.name for name, _ in self.sets) else None
            return dns.rcode.YXRRSET if key in self.sets else None
        return None if self.sets.get(key) == {rdata.to_text() for rdata in rrset} else dns.rcode.NXRRSET


def work_off(names, server, now, limit=200):
    for _ in range(limit):
        update = names.next_update(now)
        if update is None:
            return
        names.answered(update, judged(server.take(update.message().to_wire())), now)
    raise AssertionError("it does not come to rest")


@given(st.from_regex(ID_PATTERN, fullmatch=True), st.from_regex(ID_PATTERN, fullmatch=True))
def test_every_board_has_a_name(board, agent):
    longest = ".".join(["z" * 63] * 2 + ["z" * 61])
    for zone in ("boards.test", longest):
        settings = ZoneSettings(agent, zone)
        (entry,) = entries_of(settings, board, [IPv4Address("10.77.0.11")])
        name = dns.name.from_text(entry.name)
        assert name.labels[0] == board.encode()
        assert name.parent() == dns.name.from_text(zone)
        names = DnsNames(settings, None)
        names.want({board: [IPv4Address("10.77.0.11")]}, 0)
        update = dns.message.from_wire(names.next_update(0).message().to_wire())
        (mark,) = [rrset[0] for rrset in update.update if rrset.rdtype == dns.rdatatype.TXT]
        assert mark.strings == (f"boardhand board={board} agent={agent}".encode(),)


def test_addresses_go_to_the_most_specific_zone_of_ours():
    addresses = [ip_address(text) for text in ("10.77.0.1", "10.1.2.3", "192.0.2.1", "2001:db8::1")]
    entries = entries_of(SETTINGS, "b1", addresses)
    assert [(entry.zone, entry.name) for entry in entries if entry.kind is Kind.REVERSE] == [
        ("10.in-addr.arpa.", "3.2.1.10.in-addr.arpa."),
        ("77.10.in-addr.arpa.", "1.0.77.10.in-addr.arpa."),
    ]


@pytest.mark.parametrize("zone", ["", ".", "a..b", "x" * 64, ".".join(["z" * 63] * 3)])
def test_what_is_no_zone(zone):
    with pytest.raises(ValueError, match="zone"):
        ZoneSettings("desk", zone)
    with pytest.raises(ValueError, match="zone"):
        ZoneSettings("desk", "boards.test", (zone,))


def test_what_else_cannot_be():
    with pytest.raises(ValueError, match="ttl_s"):
        ZoneSettings("desk", "boards.test", ttl_s=-1)
    with pytest.raises(ValueError, match="not an id"):
        DnsNames(SETTINGS, None).want({"a.b": []}, 0)
    for state in (
        {},
        {"version": 1, "names": []},
        {"version": 1, "names": {"b1.": {}}},
        {"version": 1, "names": {"b1.": {"kind": "forward", "marks": [], "values": [], "zone": "z.", "board": "b"}}},
        {
            "version": 1,
            "names": {"b1.": {"kind": "forward", "marks": ["m"], "values": ["x"], "zone": "z.", "board": ""}},
        },
    ):
        with pytest.raises(DnsStateError):
            DnsNames(SETTINGS, state)


V4, V6 = IPv4Address("10.77.0.0"), IPv6Address("2001:db8::1")
BOARDS = st.dictionaries(
    st.sampled_from(["b1", "b2", "b3"]),
    st.lists(st.sampled_from([V4, V4 + 1, V4 + 2, V6]), max_size=2),
    max_size=3,
)
ACTS = st.tuples(st.sampled_from(["want", "want meanwhile"]), BOARDS) | st.tuples(
    st.sampled_from(["send", "lose question", "lose answer", "kill", "rename", "later"]), st.none()
)
STRANGERS = st.sets(st.sampled_from(["b1", "b2"]))


def live_through(acts, server):
    """An owner's life with a bad network, and the names and the time at its end."""
    stored, now = None, 0.0
    settings = SETTINGS
    names = DnsNames(settings, None)
    for act, boards in acts:
        now += 1
        if act == "want":
            names.want(boards, now)
        elif act in {"kill", "rename"}:
            settings = RENAMED if (settings is SETTINGS) == (act == "rename") else SETTINGS
            names = DnsNames(settings, stored)
        elif act == "later":
            now += MAX_RETRY_S
        else:
            update = names.next_update(now)
            stored = names.state()  # what the owner does before it sends
            if update is None:
                continue
            rcode = None if act == "lose question" else server.take(update.message().to_wire())
            if act == "want meanwhile":
                names.want(boards, now)
            names.answered(update, judged(rcode) if act in {"send", "want meanwhile"} else DEAD, now)
    return names, now


@given(STRANGERS, st.lists(ACTS, max_size=25), BOARDS)
def test_whatever_is_lost_or_killed_dns_is_as_wanted_in_the_end(strangers, acts, last):
    """Kills, lost questions and lost answers at any moment: at the end ours are right and strangers' untouched."""
    server = SmallDns()
    theirs = {}
    for board in strangers:
        name = dns.name.from_text(f"{board}.boards.test.")
        theirs[(name, dns.rdatatype.A)] = {"192.0.2.1"}
        theirs[(name, dns.rdatatype.TXT)] = {'"mine"'}
    server.sets |= {key: set(values) for key, values in theirs.items()}
    names, now = live_through(acts, server)
    now += REFRESH_S + MAX_RETRY_S
    names.want(last, now)
    for _ in range(3):  # an address that one board gives up is another's at the next try
        work_off(names, server, now)
        now += TAKEN_RETRY_S
    known_now = names.state()["names"]
    for key, values in theirs.items():
        assert server.sets[key] == values
    for board, addresses in last.items():
        key = (dns.name.from_text(f"{board}.boards.test."), dns.rdatatype.A)
        v4 = {str(address) for address in addresses if address.version == 4}
        if board not in strangers and addresses:
            assert server.sets.get(key, set()) == v4
    for name, _kind in server.sets.keys() - theirs.keys():
        assert name.to_text() in known_now  # nothing stands there that nobody would remove
    names.want({}, now)
    work_off(names, server, now)
    assert server.sets == theirs
    assert names.state()["names"] == {}


def test_a_dead_zone_backs_off_alone():
    names = DnsNames(SETTINGS, None)
    names.want({"b1": [IPv4Address("10.77.0.1")]}, 0)
    now, waits = 0.0, []
    for _ in range(12):
        update = names.next_update(now)
        while update.entry.kind is Kind.FORWARD:
            names.answered(update, DONE, now)
            update = names.next_update(now)
        names.answered(update, DEAD, now)
        due = names.next_due()
        waits.append(due - now)
        assert names.next_update(now) is None or names.next_update(now).entry.kind is Kind.FORWARD
        if names.next_update(now) is not None:
            names.answered(names.next_update(now), DONE, now)
            due = names.next_due()
        now = due
    assert waits[1] == FIRST_RETRY_S * 2
    assert waits[-1] == MAX_RETRY_S
    assert list(names.troubles()) == ["1.0.77.10.in-addr.arpa."]


def test_nothing_is_sent_before_anything_is_wanted():
    names = DnsNames(SETTINGS, None)
    names.want({"b1": [IPv4Address("10.77.0.1")]}, 0)
    work_off(names, SmallDns(), 0)
    again = DnsNames(SETTINGS, names.state())
    assert again.next_update(1e9) is None


def test_a_board_without_an_address_keeps_what_it_has():
    names, server = DnsNames(SETTINGS, None), SmallDns()
    names.want({"b1": [IPv4Address("10.77.0.1")]}, 0)
    work_off(names, server, 0)
    before = dict(server.sets)
    again = DnsNames(SETTINGS, names.state())
    again.want({"b1": []}, 0)
    work_off(again, server, 0)
    assert server.sets == before


@given(st.binary(max_size=60), st.integers(0, 65535))
def test_no_answer_is_believed_unsigned(data, number):
    names = DnsNames(SETTINGS, None)
    names.want({"b1": [IPv4Address("10.77.0.1")]}, 0)
    message = names.next_update(0).message()
    head = number.to_bytes(2) + b"\xa8\x00"
    assert answers(head + data, number) == (len(data) >= 8)
    assert not answers(data[:11], number)
    try:
        found = judged_answer(head + data.ljust(8, b"\0"), message)
    except dns.exception.DNSException:
        return
    assert found.verdict is Verdict.FAILED


def test_an_agent_that_is_renamed_and_killed_still_knows_its_names():
    server, addresses = SmallDns(), {"b1": [IPv4Address("192.0.2.1")]}
    names = DnsNames(SETTINGS, None)
    names.want(addresses, 0)
    work_off(names, server, 0)
    renamed = DnsNames(RENAMED, names.state())
    renamed.want(addresses, 0)
    update = renamed.next_update(0)
    renamed.answered(update, judged(server.take(update.message().to_wire())), 0)
    assert renamed.next_update(0).mark == "boardhand board=b1 agent=desk"
    again = DnsNames(RENAMED, renamed.state())  # killed before the name had its new mark
    again.want({}, 0)
    work_off(again, server, 0)
    assert server.sets == {}


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("NOERROR", Verdict.DONE),
        ("YXDOMAIN", Verdict.UNMET),
        ("YXRRSET", Verdict.UNMET),
        ("NXRRSET", Verdict.UNMET),
        ("NXDOMAIN", Verdict.UNMET),
        ("REFUSED", Trouble.REFUSED),
        ("NOTAUTH", Trouble.NOT_AUTHORITATIVE),
        ("NOTZONE", Trouble.NOT_ZONE),
        ("SERVFAIL", Trouble.SERVER),
        ("NOTIMP", Trouble.SERVER),
    ],
)
def test_every_code_has_its_meaning(code, meaning):
    answer = judged(dns.rcode.from_text(code))
    assert meaning in {answer.verdict, answer.trouble}
    assert (answer.trouble is None) == (answer.verdict is not Verdict.FAILED)
    assert set(ADVICE) == set(Trouble)


def test_a_name_that_is_refused_delays_no_other():
    """As BIND's check-names refuses a name that ends in a hyphen."""
    names, server, now, waits = DnsNames(ZoneSettings("desk", "boards.test"), None), SmallDns(), 0.0, []
    names.want({"a-": [IPv4Address("10.77.0.1")], "b1": [IPv4Address("10.77.0.2")]}, 0)
    for _ in range(10):
        while (update := names.next_update(now)) is not None:
            refused = update.entry.board == "a-"
            rcode = dns.rcode.REFUSED if refused else server.take(update.message().to_wire())
            names.answered(update, judged(rcode), now)
        assert (dns.name.from_text("b1.boards.test."), dns.rdatatype.A) in server.sets
        waits.append(names.next_due() - now)
        now += waits[-1]
    assert waits[:3] == [FIRST_RETRY_S, FIRST_RETRY_S * 2, FIRST_RETRY_S * 4]
    assert waits[-1] == MAX_RETRY_S
    assert list(names.troubles()) == ["a-.boards.test."]
