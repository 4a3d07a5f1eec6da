"""Outlets that feed several boards, chains, spacing of switch-ons: decisions, and the service that follows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.feed import FeedKind, OutletRef, feed_power
from agent.power.inrush import InrushSpacing
from agent.power.journal import Journal, MemoryStore
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from agent.power.sharing import Sharing
from wire.phases import ErrorKind, Power, PowerAction

PDU, HUB_A, HUB_B = OutletRef("pdu", "1"), OutletRef("hub", "1"), OutletRef("hub", "2")
OFF, ON, CYCLE = PowerAction.OFF, PowerAction.ON, PowerAction.CYCLE


@pytest.mark.parametrize(
    ("states", "kind", "power"),
    [
        ([Power.OFF, Power.UNKNOWN], FeedKind.CHAIN, Power.OFF),
        ([Power.ON, Power.OFF], FeedKind.CHAIN, Power.OFF),
        ([Power.ON, Power.UNKNOWN], FeedKind.CHAIN, Power.UNKNOWN),
        ([Power.ON, Power.ON], FeedKind.CHAIN, Power.ON),
        ([Power.ON, Power.OFF], FeedKind.PARALLEL, Power.ON),
        ([Power.OFF, Power.UNKNOWN], FeedKind.PARALLEL, Power.UNKNOWN),
        ([Power.OFF, Power.OFF], FeedKind.PARALLEL, Power.OFF),
        ([Power.ON, Power.OFF], FeedKind.UNSAID, Power.UNKNOWN),
    ],
)
def test_what_a_feed_says_depends_on_how_it_hangs_together(states, kind, power):
    assert feed_power(states, kind) is power


def test_a_shared_outlet_stays_on_for_the_others():
    sharing = Sharing({"a": (PDU, HUB_A), "b": (PDU, HUB_B)})
    assert sharing.off_feed("a", lambda _: False) == (HUB_A,)
    assert sharing.off_feed("a", lambda _: True) == (PDU, HUB_A)
    assert sharing.moved_with("a", OFF) == []
    assert sharing.groups() == [["a", "b"]]


def test_boards_on_one_outlet_alone_go_together():
    sharing = Sharing({"a": (PDU,), "b": (PDU,), "c": (HUB_A,)})
    assert sharing.moved_with("a", CYCLE) == sharing.moved_with("a", ON) == ["b"]
    assert sharing.off_feed("a", lambda _: False) == (PDU,)
    assert sharing.groups() == [["a", "b"], ["c"]]


@given(
    st.lists(
        st.lists(st.sampled_from([OutletRef("p", str(n)) for n in range(4)]), min_size=1, max_size=3, unique=True),
        min_size=1,
        max_size=5,
    ),
    st.sets(st.integers(0, 4)),
)
def test_nobody_loses_power_whom_nobody_named(feeds, off):
    sharing = Sharing({str(number): tuple(refs) for number, refs in enumerate(feeds)})
    assert sorted(board for group in sharing.groups() for board in group) == sorted(map(str, range(len(feeds))))
    for number, refs in enumerate(feeds):
        board = str(number)
        gone = sharing.off_feed(board, lambda other: int(other) in off)
        assert gone, "something of it goes off"
        assert set(gone) <= set(refs)
        for ref in gone:
            for other in sharing.users(ref):
                assert other == board or int(other) in off or other in sharing.moved_with(board, OFF)


class Controller:
    """What the spacing looks at."""

    def __init__(self, spacing_s, circuit=None):
        self.inrush_spacing_s, self.circuit = spacing_s, circuit


def test_two_controllers_on_one_fuse_wait_for_each_other():
    inrush = InrushSpacing({"a": Controller(0, "left"), "b": Controller(1, "left"), "c": Controller(0)}, {"left": 0.5})
    assert inrush.take("a", 10.0) == 0
    assert inrush.take("b", 10.0) == 0.5
    assert inrush.take("a", 10.0) == 1.0
    assert inrush.take("b", 10.0) == 1.5
    assert inrush.take("c", 10.0) == 0
    assert inrush.take("a", 100.0) == 0


@pytest.fixture
async def farm(fakes):
    """Two boards: each on its own port of a hub, the hub on an outlet of a PDU."""
    pdu, hub = fakes.FakeDriver(), fakes.FakeDriver()
    changes, unreadable = [], []

    def build(feeds, **more):
        controllers = {"pdu": fakes.any_settings(shared_outlets=["1"]), "hub": fakes.any_settings()}
        return PowerService(
            controllers,
            feeds,
            journal=Journal(store, "boot"),
            listeners=Listeners(lambda *seen: changes.append(seen), lambda *seen: unreadable.append(seen)),
            driver_factory=fakes.Factory(lambda name: {"pdu": pdu, "hub": hub}[name]),
            poll_every_s=0,
            **more,
        )

    store = MemoryStore()
    build.pdu, build.hub, build.changes, build.unreadable = pdu, hub, changes, unreadable
    yield build
    await store.close()


def chain(port, **more):
    return BoardFeed(outlets=["pdu:1", f"hub:{port}"], kind=FeedKind.CHAIN, **more)


async def test_the_last_board_off_takes_the_hub_with_it(farm):
    service = farm({"a": chain(1), "b": chain(2)})
    await service.start()
    for board in "ab":
        assert (await service.switch(board, ON, operation_id=board)).ok
    outcome = await service.switch("a", OFF, operation_id="a-off")
    assert (outcome.ok, outcome.power) == (True, Power.OFF)
    assert (farm.pdu.on, farm.hub.on) == ({"1": True}, {"1": False, "2": True})
    assert service.last("b") is Power.ON
    outcome = await service.switch("b", OFF, operation_id="b-off")
    assert (outcome.ok, outcome.power) == (True, Power.OFF)
    assert (farm.pdu.on, farm.hub.on) == ({"1": False}, {"1": False, "2": False})
    await service.close()


async def test_a_hub_that_has_no_power_is_not_asked_to_switch(farm):
    service = farm({"a": chain(1)})
    await service.start()
    farm.pdu.on["1"] = False
    farm.hub.error = UnreachableError("gone", controller="hub")
    outcome = await service.switch("a", OFF, operation_id="off")
    assert (outcome.ok, outcome.power, outcome.error) == (True, Power.OFF, None)
    assert not [call for call in farm.hub.calls if call[0] == "set"]
    await service.close()


async def test_boards_that_share_all_are_told_of_each_other(farm):
    service = farm({"a": BoardFeed(outlets=["pdu:1"]), "b": BoardFeed(outlets=["pdu:1"])})
    await service.start()
    assert service.moved_with("a", OFF) == ["b"]
    await service.switch("a", ON, operation_id="on")
    assert farm.changes[-2:] == [("a", Power.ON), ("b", Power.ON)]
    assert service.last("b") is Power.ON
    await service.close()


async def test_what_must_never_go_off_does_not(farm):
    service = farm({"a": BoardFeed(outlets=["pdu:1"], never_off=True), "b": BoardFeed(outlets=["pdu:1"])})
    await service.start()
    assert (await service.switch("a", ON, operation_id="1")).ok
    for board in "ab":
        for action in (OFF, CYCLE):
            outcome = await service.switch(board, action, operation_id="2")
            assert outcome.error is not None
            assert outcome.error.kind is ErrorKind.NOT_ALLOWED
            assert "a must never be switched off" in outcome.error.message
    assert farm.pdu.on == {"1": True}
    assert (await service.switch("a", OFF, operation_id="3", force=True)).ok
    await service.close()


async def test_an_outlet_without_a_board_is_switched_and_verified_too(farm):
    service = farm({"a": chain(1)})
    await service.start()
    spare = OutletRef("hub", "7")
    outcome = await service.switch_outlet(spare, ON, operation_id="spare")
    assert (outcome.ok, outcome.power) == (True, Power.ON)
    assert await service.read_outlet(spare) is Power.ON
    farm.hub.lies = True
    outcome = await service.switch_outlet(spare, OFF, operation_id="spare-2")
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.NOT_VERIFIED
    assert "hub:7" in outcome.error.message
    for ref, kind in ((HUB_A, ErrorKind.NOT_ALLOWED), (OutletRef("nobody", "1"), ErrorKind.NOT_FOUND)):
        refused = await service.switch_outlet(ref, ON, operation_id="no")
        assert refused.error is not None
        assert refused.error.kind is kind
    farm.hub.error = ConfigurationError("it has no such outlet", controller="hub", outlet="99")
    assert not (await service.switch_outlet(OutletRef("hub", "99"), ON, operation_id="none")).ok
    assert list(service._loose) == [spare], "names that somebody invents do not pile up"
    assert all(board == "a" for board, _ in farm.changes), "an outlet without a board is nobody's news"
    await service.close()


async def test_three_silent_rounds_are_told_once_and_the_end_of_it_too(farm):
    service = farm({"a": BoardFeed(outlets=["hub:1"])})
    await service.start()
    farm.hub.error = UnreachableError("silent", controller="hub")
    for round_number in range(5):
        await service.read("a")
        service._readings.count_unreadable(service._boards.values())
        assert len(farm.unreadable) == (1 if round_number >= 2 else 0)
    assert farm.unreadable[0][1].kind is ErrorKind.UNREACHABLE
    assert farm.unreadable[0][1].message.startswith("a: hub")
    farm.hub.error = None
    await service.read("a")
    service._readings.count_unreadable(service._boards.values())
    assert farm.unreadable[1:] == [("a", None)]
    await service.close()


async def test_the_off_of_a_cycle_is_told_however_short_it_is(farm):
    service = farm({"a": BoardFeed(outlets=["hub:1"], min_off_s=0)})
    await service.start()
    await service.switch("a", ON, operation_id="on")
    assert (await service.switch("a", CYCLE, operation_id="cycle")).ok
    assert farm.changes[-2:] == [("a", Power.OFF), ("a", Power.ON)]
    await service.close()


async def test_a_longer_off_time_may_be_asked_for_and_a_shorter_may_not(farm):
    service = farm({"a": BoardFeed(outlets=["hub:1"], min_off_s=0.2)})
    await service.start()
    await service.switch("a", ON, operation_id="on")
    for asked_s, least_ms in ((0.0, 200), (0.5, 500)):
        outcome = await service.switch("a", CYCLE, operation_id="cycle", min_off_s=asked_s)
        assert outcome.ok
        assert least_ms <= outcome.took_ms < 30_000
    await service.close()


async def test_errors_name_board_outlet_and_attempt(farm):
    service = farm({"a": BoardFeed(outlets=["hub:1"], attempts=2)})
    await service.start()
    farm.hub.error = UnreachableError("silent", controller="hub", outlet="1", do="look at it")
    outcome = await service.switch("a", ON, operation_id="on")
    assert outcome.error is not None
    assert outcome.error.message == "a: hub:1: silent (attempt 2); look at it"
    await service.close()
