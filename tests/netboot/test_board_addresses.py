"""Which board an address means."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from netboot.board_addresses import by_ipv6, known_as, link_local


@dataclass(frozen=True)
class Board:
    board: str
    macs: tuple[str, ...]
    address: IPv4Address
    address6: IPv6Address | None = None


ONE = Board("one", ("52:54:00:77:00:01", "02:00:00:00:00:01"), IPv4Address("10.77.0.11"), IPv6Address("fd77::11"))
TWO = Board("two", ("52:54:00:77:00:02",), IPv4Address("10.77.0.12"))


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("34:56:78:9a:bc:de", "fe80::3656:78ff:fe9a:bcde"),  # RFC 4291 appendix A's rule, on the MAC of RFC 2464
        ("52:54:00:77:00:01", "fe80::5054:ff:fe77:1"),
        ("00:00:00:00:00:00", "fe80::200:ff:fe00:0"),
    ],
)
def test_link_local(mac, address):
    assert link_local(mac) == IPv6Address(address)


def test_a_client_is_looked_up_by_what_it_is_known_as():
    known = by_ipv6([ONE, TWO])
    cases = {
        "10.77.0.11": "10.77.0.11",
        "10.9.9.9": "10.9.9.9",
        "fd77::11": "10.77.0.11",
        "fe80::5054:ff:fe77:1": "10.77.0.11",
        "fe80::ff:fe00:1": "10.77.0.11",
        "fe80::5054:ff:fe77:2%eth1": "10.77.0.12",
        "fd77::12": None,
        "fe80::1": None,
        "::ffff:10.77.0.11": None,
        "fe80::x": None,
        "fd77::5054:ff:fe77:1": None,  # the same number in another network: nobody said so
    }
    for client, address in cases.items():
        assert known_as(client, known) == (None if address is None else IPv4Address(address)), client


@pytest.mark.parametrize(
    ("board", "why"),
    [
        (Board("three", (), IPv4Address("10.77.0.13"), IPv6Address("fd77::11")), "already means board one"),
        (Board("three", (), IPv4Address("10.77.0.13"), link_local(TWO.macs[0])), "already means board two"),
        (Board("three", (), IPv4Address("10.77.0.13"), IPv6Address("ff02::1")), "no address of a single board"),
        (Board("three", (), IPv4Address("10.77.0.13"), IPv6Address("::")), "no address of a single board"),
        (Board("three", (), IPv4Address("10.77.0.13"), IPv6Address("::ffff:10.0.0.1")), "is an IPv4 address"),
        (Board("three", (), IPv4Address("10.77.0.13"), IPv6Address("fe80::1%eth0")), "leave out what follows %"),
    ],
)
def test_addresses_that_mean_no_single_board(board, why):
    with pytest.raises(ValueError, match=f"board three: .*{why}"):
        by_ipv6([ONE, TWO, board])


def test_a_board_may_name_its_link_local_address_itself():
    named = Board("one", ONE.macs, ONE.address, link_local(ONE.macs[0]))
    assert by_ipv6([named])[link_local(ONE.macs[0])] == ONE.address
