import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.life import LifeEvent
from agent.presence.observations import (
    MOST_ADDRESSES,
    LinkSeen,
    NeighbourSeen,
    PresenceBook,
    Source,
    UsbMark,
    UsbSeen,
    marks,
)

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
BOARDS = {
    "pi": marks([MAC], "enp3s0", "1-1.4"),
    "bone": marks([OTHER.upper()], None, "0525:a4a2:B-7"),
    "mute": marks([], None, None),
}


def said(signs):
    return [(sign.board, sign.source.value, sign.alive) for sign in signs]


def test_a_link_comes_and_goes_once() -> None:
    book = PresenceBook(BOARDS)
    assert said(book.take(LinkSeen("enp3s0", up=False))) == []  # it never was up
    assert said(book.take(LinkSeen("eth9", up=True))) == []
    (sign,) = book.take(LinkSeen("eth0", up=True, others=("enp3s0",)))
    assert (sign.words, sign.life) == ("link up on enp3s0", None)
    assert sign.details == {"what": "link", "interface": "enp3s0", "state": "up"}
    assert book.take(LinkSeen("eth0", up=True, others=("enp3s0",))) == []
    assert said(book.take(LinkSeen("eth0", up=False, others=("enp3s0",)))) == [("pi", "link", False)]
    assert book.alive("pi")[Source.LINK] is False


def test_a_neighbour_is_there_while_one_of_its_addresses_answers() -> None:
    book = PresenceBook(BOARDS)
    (sign,) = book.take(NeighbourSeen(MAC, "10.0.0.5", "lan0", answers=True))
    assert (sign.board, sign.words, sign.life) == ("pi", "answers as 10.0.0.5 on lan0", LifeEvent.ANSWERS)
    assert book.take(NeighbourSeen(MAC, "fe80::1", "lan0", answers=True)) == []
    assert book.take(NeighbourSeen(MAC, "10.0.0.5", "lan0", answers=False)) == []
    (sign,) = book.take(NeighbourSeen(MAC, "fe80::1", "lan0", answers=False))
    assert (sign.alive, sign.life) == (False, None)
    assert book.take(NeighbourSeen(MAC, "fe80::1", "lan0", answers=None)) == []
    assert book.take(NeighbourSeen(MAC, "10.0.0.5", "lan0", answers=None)) == []  # forgotten: nobody can tell
    assert Source.NEIGHBOUR not in book.alive("pi")
    assert book.take(NeighbourSeen("02:00:00:00:00:77", "10.0.0.9", "lan0", answers=True)) == []


def test_frames_through_a_bridge_are_life_and_an_address_is_more() -> None:
    book = PresenceBook(BOARDS)
    (frames,) = book.take(NeighbourSeen(MAC, "", "port1", answers=True))
    assert (frames.words, frames.alive, frames.life) == (f"answers as {MAC} on port1", True, None)
    (answer,) = book.take(NeighbourSeen(MAC, "10.0.0.5", "br0", answers=True))
    assert answer.life is LifeEvent.ANSWERS
    for again in (None, True):
        assert book.take(NeighbourSeen(MAC, "10.0.0.5", "br0", answers=again)) == []


def test_a_board_that_netboots_is_not_moved() -> None:
    """Its boot loader answers before it asks by DHCP."""
    book = PresenceBook({"pi": marks([MAC], None, None, netboots=True)})
    (sign,) = book.take(NeighbourSeen(MAC, "10.0.0.5", "lan0", answers=True))
    assert (sign.alive, sign.life) == (True, None)


def test_usb_by_path_and_by_serial() -> None:
    book = PresenceBook(BOARDS)
    assert said(book.take(UsbSeen("1-1.4", present=True, ids="1d6b:0104"))) == [("pi", "usb", True)]
    assert book.take(UsbSeen("2-1", present=True, ids="0525:a4a2", serial="B-8")) == []
    (sign,) = book.take(UsbSeen("2-2", present=True, ids="0525:a4a2", product="Gadget", serial="B-7"))
    assert sign.words == "USB device 2-2 (Gadget)"
    assert book.wants_serials == {"0525:a4a2"}
    assert said(book.take(UsbSeen("2-2", present=False, ids="0525:a4a2"))) == [("bone", "usb", False)]
    assert said(book.usb_now([])) == [("pi", "usb", False)]
    assert book.usb_devices == []


def test_other_boards_from_now_on() -> None:
    book = PresenceBook(BOARDS)
    book.take(LinkSeen("enp4s0", up=True))
    book.take(NeighbourSeen(MAC, "10.0.0.5", "lan0", answers=True))
    assert book.follow(BOARDS) == []  # what did not change says nothing anew
    (sign,) = book.follow({"new": marks([], "enp4s0", None)})
    assert (sign.board, sign.first, sign.alive) == ("new", True, True)
    assert book.alive("pi") == {}
    assert book.sources == {Source.LINK}


@pytest.mark.parametrize("text", ["1", "1-", "1-1.", "usb1", "0525:a4a", "0525:a4a2:", "0525:a4a2:x y", ""])
def test_what_names_no_usb_device(text: str) -> None:
    with pytest.raises(ValueError, match="neither a USB path"):
        UsbMark.parse(text)


ADDRESS = st.sampled_from(["", "10.0.0.1", "10.0.0.2", "fe80::1"])
SEEN = st.one_of(
    st.builds(LinkSeen, st.sampled_from(["enp3s0", "eth1"]), st.booleans()),
    st.builds(NeighbourSeen, st.sampled_from([MAC, OTHER, "02:00:00:00:00:03"]), ADDRESS, st.just("lan0"),
              st.sampled_from([True, False, None])),
    st.builds(UsbSeen, st.sampled_from(["1-1.4", "2-2"]), st.booleans(), st.just("0525:a4a2"), st.just(""),
              st.sampled_from(["B-7", "B-8"])),
)  # fmt: skip


@given(st.lists(SEEN, max_size=60))
def test_signs_alternate_and_agree_with_what_is_known(seen: list) -> None:
    book, last = PresenceBook(BOARDS), {}
    for one in seen:
        for sign in book.take(one):
            assert last.get((sign.board, sign.source), False) is not sign.alive or sign.source is Source.NEIGHBOUR
            last[sign.board, sign.source] = sign.alive
        for board in BOARDS:
            for source, alive in book.alive(board).items():
                assert last.get((board, source), False) is alive
    assert book.follow(BOARDS) == []


def test_a_flood_of_addresses_stays_small() -> None:
    book = PresenceBook(BOARDS)
    for number in range(10 * MOST_ADDRESSES):
        book.take(NeighbourSeen(MAC, f"10.1.{number // 256}.{number % 256}", "lan0", answers=True))
    assert len(book._neighbours[MAC]) == MOST_ADDRESSES
