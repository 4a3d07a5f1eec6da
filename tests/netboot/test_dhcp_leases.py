"""The pool: what is free, what survives a restart, and how a client may behave before it is not answered."""

import asyncio
import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp_lease_keeper import LeaseKeeper
from netboot.dhcp_leases import DECLINED_HOLD_S, OFFER_HOLD_S, LeasesStateError, LeaseTable
from netboot.dhcp_rate import MAX_CLIENTS, ClientRates, Rate

POOL = (IPv4Address("10.77.0.100"), IPv4Address("10.77.0.103"))
A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
FIRST = POOL[0]


def stored(table, now, wall_s):
    return json.loads(json.dumps(table.state(now, wall_s)))


def test_leases_and_declined_addresses_survive_a_restart_offers_do_not():
    table = LeaseTable(POOL, lease_s=600)
    table.lease(FIRST, A, 600)
    table.offer(FIRST + 1, B, 0)
    table.lease(FIRST + 2, "c", 600)
    assert table.decline(FIRST + 2, "c", 0)
    # The new process has another monotonic clock, and 100 s of wall clock went by.
    again = LeaseTable(POOL, state=stored(table, 0, 5000.0), now=7.0, wall_s=5100.0, lease_s=600)
    assert again.holder(FIRST, 7 + 499) == A
    assert again.holder(FIRST, 7 + 501) is None
    assert again.held_by(A, 8) == FIRST
    assert again.holder(FIRST + 1, 8) is None
    assert again.choose("d", FIRST + 2, 8) != FIRST + 2
    assert again.choose("d", FIRST + 2, 7 + DECLINED_HOLD_S - 99) == FIRST + 2


def test_a_clock_that_was_set_back_makes_no_lease_for_ever():
    table = LeaseTable(POOL, lease_s=600)
    table.lease(FIRST, A, 600)
    again = LeaseTable(POOL, state=stored(table, 0, 2e9), now=0, wall_s=0, lease_s=600)
    assert again.holder(FIRST, 599) == A
    assert again.holder(FIRST, 601) is None


def test_what_the_settings_took_from_the_pool_is_not_restored():
    table = LeaseTable(POOL, lease_s=600)
    table.lease(FIRST, A, 600)
    state = stored(table, 0, 0)
    assert LeaseTable(POOL, [FIRST], state, lease_s=600).held_by(A, 1) is None
    assert LeaseTable((FIRST + 1, FIRST + 2), state=state, lease_s=600).held_by(A, 1) is None
    assert LeaseTable(None, state=state, lease_s=600).held_by(A, 1) is None


def test_reserved_addresses_are_never_given():
    table = LeaseTable(POOL, [FIRST, FIRST + 1, FIRST + 2])
    assert {table.choose(mac, FIRST, 0) for mac in (A, B, "c", "d")} == {FIRST + 3}


def test_the_revision_tells_when_to_store():
    table = LeaseTable(POOL)
    table.offer(FIRST, A, 0)
    assert table.revision == 0
    for number, change in enumerate(
        (
            lambda: table.lease(FIRST, A, 600),
            lambda: table.release(FIRST, A),
            lambda: table.in_use(FIRST, 0),
        ),
        1,
    ):
        change()
        assert table.revision == number
    table.in_use(FIRST, 1)  # known already
    table.in_use(IPv4Address("10.77.0.9"), 1)  # not ours
    assert table.revision == 3


def test_an_offer_does_not_shorten_a_lease():
    table = LeaseTable(POOL)
    table.lease(FIRST, A, 600)
    table.offer(FIRST, A, 10)
    assert table.holder(FIRST, 599) == A
    table.offer(FIRST, A, 590)  # and makes its end later, where it would come before the REQUEST
    assert table.holder(FIRST, 590 + OFFER_HOLD_S - 1) == A


@pytest.mark.parametrize(
    "state",
    [
        {"version": 2, "leases": []},
        {"version": 1, "leases": {}},
        {"version": 1, "leases": ["x"]},
        {"version": 1, "leases": [{"address": "10.77.0.100", "mac": 7, "until": 1}]},
        {"version": 1, "leases": [{"address": "10.77.0.100", "mac": A, "until": True}]},
        {"version": 1, "leases": [{"address": "nowhere", "mac": A, "until": 1}]},
        {"version": 1, "leases": [{"address": None, "mac": A, "until": 1}]},
        {"version": 1, "leases": [{"address": "10.77.0.100", "mac": A}]},
    ],
)
def test_a_broken_state_is_named(state):
    with pytest.raises(LeasesStateError, match="DHCP lease"):
        LeaseTable(POOL, state=state)


actions = st.tuples(
    st.sampled_from(["offer", "lease", "release", "decline", "in_use", "forget", "restart"]),
    st.integers(0, 5),
    st.integers(-1, 4),
    st.floats(0, 400),
)


@settings(deadline=None)
@given(st.lists(actions, max_size=40))
def test_one_address_for_each_client_and_one_client_for_each_address(walk):
    table, now = LeaseTable(POOL, [FIRST + 3], lease_s=600), 0.0
    for action, who, offset, wait in walk:
        now += wait
        mac, address = f"mac{who}", FIRST + offset
        if action in {"offer", "lease"}:
            chosen = table.choose(mac, address, now)
            if chosen is None:
                continue
            assert table.holder(chosen, now) in {None, mac}
            getattr(table, action)(chosen, mac, now if action == "offer" else now + 600)
        elif action == "decline":
            table.decline(address, mac, now)
        elif action == "restart":
            table = LeaseTable(POOL, [FIRST + 3], stored(table, now, 1e9), now=now, wall_s=1e9, lease_s=600)
        elif action == "in_use":
            table.in_use(address, now)
        elif action == "release":
            table.release(address, mac)
        else:
            table.forget(mac)
        held = {f"mac{n}": table.held_by(f"mac{n}", now) for n in range(6)}
        taken = [address for address in held.values() if address is not None]
        assert len(set(taken)) == len(taken)
        assert all(table.holder(address, now) == mac for mac, address in held.items() if address is not None)
        assert FIRST + 3 not in taken


def test_a_client_in_a_loop_is_told_once_and_rests():
    rates = ClientRates(Rate(3, 1), Rate(100, 100))
    verdicts = [rates.client(A, 0.0) for _ in range(6)]
    assert [verdict.allowed for verdict in verdicts] == [True] * 3 + [False] * 3
    assert [verdict.newly_refused for verdict in verdicts[3:]] == [A, None, None]
    assert rates.client(B, 0.0).allowed  # nobody else suffers
    assert rates.client(A, 1.5).allowed
    assert rates.client(A, 1.5).newly_refused is None  # no rest yet
    for _ in range(3):
        assert rates.client(A, 100.0).allowed
    assert rates.client(A, 100.0).newly_refused == A


def test_a_flood_of_strangers_is_bounded_in_answers_and_in_memory():
    rates = ClientRates(Rate(20, 2), Rate(10, 1))
    flood = [rates.stranger(0.0) for n in range(MAX_CLIENTS + 100) if rates.client(f"stranger{n}", 0.0).allowed]
    assert sum(verdict.allowed for verdict in flood) == 10
    assert [verdict.newly_refused for verdict in flood if verdict.newly_refused is not None] == [""]
    assert len(rates._clients) == MAX_CLIENTS
    assert rates.client(A, 0.0).allowed


# --- leases that are stored before they are confirmed ---


class Disk:
    """A store whose writes end when the test says so."""

    def __init__(self):
        self.states, self.begun, self.go_on = [], asyncio.Event(), asyncio.Event()
        self.error = None

    async def save(self, state):
        self.begun.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        self.states.append(state)


def keeper_of(table, save):
    return LeaseKeeper(table, save, clock=lambda: 0.0, wall_clock=lambda: 1000.0)


async def test_a_lease_is_waited_for_until_it_is_stored():
    table, disk = LeaseTable(POOL, lease_s=600), Disk()
    keeper = keeper_of(table, disk.save)
    assert keeper.stored() is None
    table.lease(FIRST, A, 600)
    first = keeper.stored()
    await disk.begun.wait()
    table.lease(FIRST + 1, B, 600)
    second = keeper.stored()
    table.lease(FIRST + 2, "c", 600)
    third = keeper.stored()
    assert keeper.stored() is None  # nothing changed since: this client waits for nobody's lease
    assert not first.done()
    disk.go_on.set()
    await asyncio.gather(first, second, third)
    assert [len(state["leases"]) for state in disk.states] == [1, 3]
    await asyncio.sleep(0)
    assert keeper.stored() is None
    await keeper.close()
    assert len(disk.states) == 2


async def test_a_full_disk_keeps_nobody_waiting_and_is_tried_again(caplog):
    table, disk = LeaseTable(POOL, lease_s=600), Disk()
    disk.go_on.set()
    disk.error = OSError(28, "No space left on device")
    keeper = keeper_of(table, disk.save)
    for number in range(3):
        table.lease(FIRST + number, f"mac{number}", 600)
        await keeper.stored()
    assert len([record for record in caplog.records if "cannot be stored" in record.getMessage()]) == 1
    disk.error = None
    await keeper.close()
    assert [len(state["leases"]) for state in disk.states] == [3]


async def test_a_plain_function_stores_too():
    table, states = LeaseTable(POOL, lease_s=600), []
    keeper = keeper_of(table, states.append)
    table.lease(FIRST, A, 600)
    await keeper.stored()
    assert LeaseTable(POOL, state=json.loads(json.dumps(states[0])), wall_s=1000.0, lease_s=600).holder(FIRST, 0) == A
