"""What of all that an agent sees is a sign of life."""

from types import SimpleNamespace

from agent.learn.bridge import AgentHands
from agent.learn.signs import Kind, Sign, Subject
from agent.presence.observations import NeighbourSeen

MAC = "02:00:00:00:00:01"


async def test_an_entry_with_an_address_counts_only_where_nothing_better_is_heard():
    agent = SimpleNamespace(settings=SimpleNamespace(boards={}, netboot=None), netboot=SimpleNamespace(server=None))
    hands = AgentHands(agent, read_watts=None)
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
