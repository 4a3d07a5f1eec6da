"""What of all that an agent sees is a sign of life."""

from types import SimpleNamespace

from agent.learn.bridge import AgentHands
from agent.learn.signs import Kind, Sign, Subject
from agent.presence.observations import NeighbourSeen
from netboot.events import DhcpSeen, FileRequested, FileSent, Role

MAC = "02:00:00:00:00:01"


def made(**controllers):
    settings = SimpleNamespace(boards={}, netboot=None, controllers=controllers)
    agent = SimpleNamespace(settings=settings, netboot=SimpleNamespace(server=None))
    return AgentHands(agent, read_watts=None)


async def test_an_entry_with_an_address_counts_only_where_nothing_better_is_heard():
    hands = made()
    events = []
    await hands.open_ears(events.append, [])
    by_address = NeighbourSeen(MAC, "10.77.0.9", "br0", answers=True)
    hands.observed(by_address)
    assert events == [Sign(Subject(Kind.MAC, MAC), words="10.77.0.9")], "all that there is of it"
    hands.observed(NeighbourSeen(MAC, "", "br0", answers=True))
    assert len(events) == 2, "a bridge saw its frames"
    hands.observed(by_address)
    assert len(events) == 2, "it may come 5 s after the last packet"
    await hands.close_ears()
    await hands.open_ears(events.append, [])
    hands.observed(by_address)
    assert len(events) == 3, "another experiment begins anew"
    await hands.close_ears()


async def test_a_file_that_only_counts_as_sent_is_no_word_of_the_board():
    hands, events, role = made(), [], next(iter(Role))
    await hands.open_ears(events.append, [])
    hands.netboot(DhcpSeen(MAC, None, "10.77.0.9", "U-Boot.armv8", "request"))
    hands.netboot(FileRequested(None, "10.77.0.9", "kernel", role))
    hands.netboot(FileSent(None, "10.77.0.9", "kernel", role, 100, 0.1))
    assert [event.subject.name for event in events] == [MAC] * 3
    hands.netboot(FileSent(None, "10.77.0.9", "kernel", role, 100, 6.1, resent=4))
    hands.netboot(FileRequested(None, "10.77.0.8", "kernel", role))
    assert len(events) == 3, "its last block was repeated for 6 s, and nobody said anything; and somebody unknown"
    await hands.close_ears()


async def test_a_controller_is_no_sign_of_a_board():
    hands = made(
        pdu=SimpleNamespace(host="10.77.0.10"), strip=SimpleNamespace(url="http://10.77.0.11:8080/"), cable=object()
    )
    events = []
    await hands.open_ears(events.append, [])
    for last in (10, 11, 12):
        hands.observed(NeighbourSeen(f"02:00:00:00:00:{last}", f"10.77.0.{last}", "eth1", answers=True))
    assert [event.words for event in events] == ["10.77.0.12"]
    await hands.close_ears()
