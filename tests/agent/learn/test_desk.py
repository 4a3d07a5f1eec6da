"""The desk on pretended outlets: what is on disk before a switch, who may ask for what, and that a killed agent's
outlets go back."""

import asyncio

import pytest

from agent.learn.desk import LearnDesk
from agent.learn.ears import Hearing
from agent.learn.outlets import Choice, choose
from agent.learn.signs import Kind, Linked, Sign, Subject
from agent.requests import RequestError
from agent.settings import AgentSettings
from wire.payloads import ControllerInfo, OutletInfo
from wire.phases import ErrorKind, Power

MAC = Subject(Kind.MAC, "02:00:00:00:00:01")
FAST = {"baseline_s": 0.1, "spacing_s": 0, "rest_s": 0.1, "drain_s": 0.05, "listen_s": 2.0, "quiet_s": 1, "settle_s": 0}
PATIENCE_S = 60


class PretendHands:
    """Outlet pdu:1 feeds a board that speaks at once; pdu:2 is empty and was found on."""

    def __init__(self):
        self.on = {"pdu:1": False, "pdu:2": True}
        self.disk = {}
        self.on_event = None
        self.switches = []
        self.closed = False
        self.stuck = set()

    async def choose(self, only, *, also_on):
        return Choice({name: on for name, on in self.on.items() if not only or name in only}, {"pdu:9": "kept"})

    async def switch(self, outlet, *, on, operation_id):
        assert self.on_event is None or outlet in self.disk, "what it was found as is on disk first"
        if outlet in self.stuck:
            return "it does not move"
        self.on[outlet] = on
        self.switches.append((outlet, on))
        if outlet == "pdu:1" and on and self.on_event is not None:
            asyncio.get_running_loop().call_later(0.05, self.on_event, Sign(MAC, ready=True))
        return None

    async def watts(self, outlet):
        return 3.5

    async def recall(self):
        return dict(self.disk)

    async def remember(self, found):
        self.disk = dict(found)

    async def open_ears(self, on_event, consoles):
        self.on_event = on_event

    async def look(self):
        pass

    async def close_ears(self):
        self.closed = True

    def tables(self, boards):
        return [{"profile": "debian", "address": f"10.77.0.{number}"} for number, _ in enumerate(boards, 11)]


async def ended(desk):
    async with asyncio.timeout(PATIENCE_S):
        while (state := await desk.answer({"do": "state"}))["state"] == "running":  # noqa: ASYNC110  # as its users do
            await asyncio.sleep(0.05)
    return state


async def first_on(hands):
    async with asyncio.timeout(PATIENCE_S):
        while ("pdu:1", True) not in hands.switches:  # noqa: ASYNC110  # the hands are pretended
            await asyncio.sleep(0.01)


async def test_a_run_finds_the_board_and_leaves_nothing_behind():
    hands = PretendHands()
    desk = LearnDesk(hands)
    begun = await desk.answer({"do": "start", "odds": 10, "at_once": 2, **FAST})
    assert begun["left"] == {"pdu:9": "kept"}
    with pytest.raises(RequestError, match="under way") as refused:
        await desk.answer({"do": "start"})
    assert refused.value.info.kind is ErrorKind.BUSY
    state = await ended(desk)
    assert [row["feed"] for row in state["rows"]] == [("pdu:1",)]
    assert state["rows"][0]["table"] == {"profile": "debian", "address": "10.77.0.11"}
    assert [item["outlet"] for item in state["unknown"]] == ["pdu:2"]
    assert hands.on == {"pdu:1": False, "pdu:2": True}
    assert (hands.disk, hands.closed, state["unrestored"]) == ({}, True, [])
    stages = [line["stage"] for line in state["lines"]]
    assert stages[0] == "begun" and stages[-1] == "restoring" and {"trying", "heard"} <= set(stages)
    assert (await desk.answer({"seen": state["told"]}))["lines"] == []


async def test_stop_puts_everything_back():
    hands = PretendHands()
    desk = LearnDesk(hands)
    await desk.answer({"do": "start", **FAST, "listen_s": 600})
    await first_on(hands)
    await desk.answer({"do": "stop"})
    state = await ended(desk)
    assert state["stopped"] == "somebody stopped it"
    assert hands.on == {"pdu:1": False, "pdu:2": True} and hands.disk == {}
    with pytest.raises(RequestError, match="nothing is being learnt"):
        await desk.answer({"do": "stop"})


async def test_what_a_killed_agent_left_goes_back_at_the_next_start():
    hands = PretendHands()
    hands.on = {"pdu:1": True, "pdu:2": False}
    hands.disk = {"pdu:1": False, "pdu:2": True}
    await LearnDesk(hands).start()
    assert hands.on == {"pdu:1": False, "pdu:2": True} and hands.disk == {}


async def test_an_outlet_that_does_not_go_back_is_named_and_stays_on_disk():
    hands = PretendHands()
    desk = LearnDesk(hands)
    await desk.answer({"do": "start", **FAST, "listen_s": 600})
    await first_on(hands)
    hands.stuck = {"pdu:1"}
    await desk.answer({"do": "stop"})
    state = await ended(desk)
    assert state["unrestored"] == ["pdu:1"] and hands.disk == {"pdu:1": False}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"do": "dance"}, "do"),
        ({"do": "start", "at_once": 0}, "at_once"),
        ({"do": "start", "listen_s": "long"}, "listen_s"),
        ({"do": "start", "odds": True}, "odds"),
        ({"do": "start", "only": "pdu:1"}, "only"),
        ({"do": "start", "also_on": 1}, "also_on"),
    ],
)
async def test_bad_requests_name_their_key(data, key):
    with pytest.raises(RequestError) as refused:
        await LearnDesk(PretendHands()).answer(data)
    assert (refused.value.info.kind, refused.value.info.key) == (ErrorKind.BAD_REQUEST, key)


SETTINGS = {
    "agent": {"name": "lab", "state_dir": "state"},
    "controllers": {"pdu": {"driver": "qmp", "socket": "pdu.sock", "shared_outlets": ["4"]}},
    "boards": {"one": {"feed": ["pdu:1"]}},
}


def test_only_outlets_that_nobody_spoke_of_are_free():
    states = [("1", Power.OFF, "one"), ("2", Power.OFF, None), ("3", Power.ON, None), ("4", Power.OFF, None)]
    outlets = [OutletInfo(outlet=outlet, power=power, board=board) for outlet, power, board in states]
    info = ControllerInfo(name="pdu", driver="qmp", outlets=[*outlets, OutletInfo(outlet="5")])
    choice = choose(AgentSettings(**SETTINGS), [info], also_on=False)
    assert choice.free == {"pdu:2": False}
    assert set(choice.left) == {"pdu:1", "pdu:3", "pdu:4", "pdu:5"}
    assert choose(AgentSettings(**SETTINGS), [info], also_on=True).free == {"pdu:2": False, "pdu:3": True}
    picked = choose(AgentSettings(**SETTINGS), [info], only=["pdu:1", "pdu:8"], also_on=True)
    assert picked.free == {} and picked.left["pdu:8"] == "there is no such outlet"


def test_what_a_console_says():
    hearing = Hearing("/dev/ttyUSB3")
    assert hearing.feed(b"\x00\x00\xff\xfe") == [], "noise of a line that gets power is no sign"
    console = Subject(Kind.CONSOLE, "/dev/ttyUSB3")
    assert hearing.feed(b"\r\nU-Boot 2023.01 (Jan") == [Sign(console, words="U-Boot 2023.01")]
    assert not any(event.ready for event in hearing.feed(b"Last login: today\r\n") if isinstance(event, Sign))
    assert Linked(console, MAC) in hearing.feed(b"ethaddr=02:00:00:00:00:01\r\n")
    assert not any(isinstance(event, Linked) for event in hearing.feed(b"ARP from 02:00:00:00:00:09\r\n"))
    hearing.feed(b"\r\nboard1 lo")
    assert hearing.feed(b"gin: ")[0].ready
