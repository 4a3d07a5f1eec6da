"""Leases of people when boards sleep, agents go away, brokers are killed and clocks jump."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker import happenings as h
from broker.jobs.labels import Want
from broker.jobs.store import _save
from broker.leases.happenings import Reserve
from broker.leases.lease import LeaseRules
from broker.leases.store import forget_leases, last_lease
from broker.ledger import Policy
from broker.matching.waiting import Needs
from tests.broker.conftest import World
from tests.broker.lease_orders import HOUR_S, lines, release, reserve
from wire.phases import ErrorKind, JobState, Phase, PowerAction, Presence, Purpose


def test_a_sleeping_board_is_left_asleep(world):
    reply = reserve(world, "alice", "b1")
    assert reply.error is None
    world.wait(60)
    assert world.powers == []


def test_or_woken_under_the_lease_and_kept_awake(world):
    reply = reserve(world, "alice", "b1", wake=True)
    (power,) = world.powers
    assert (power.board, power.power, power.purpose) == ("b1", PowerAction.ON, Purpose.WAKE)
    assert power.token == reply.data["token"]
    world.obey_power(power)
    world.up("b1")
    world.wait(10 * world.policy.idle_s)
    assert world.powers == [], "a board that somebody holds is not put to sleep"
    world.down("b1", Phase.OFF)
    world.wait(300)
    assert world.powers == [], "switched off by its person: it stays off"


def test_waking_heeds_the_cap_and_waits_for_its_turn(make_world):
    world = make_world(Policy(booting_cap=1))
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    assert world.state(job) is JobState.WAKING
    refused = reserve(world, "alice", "b2", wake=True)
    assert "boot" in refused.error.message or "wake" in refused.error.message
    waits = reserve(world, "alice", "b2", wake=True, wait=True)
    world.obey_power(world.powers[0])
    world.up("b1")
    world.wait(1)
    assert lines(world)[waits.data["lease"]][1] == "b2"
    assert [power.board for power in world.powers] == ["b2"]


def test_a_lost_wake_is_repeated_under_the_same_id_and_a_refused_one_is_said(world):
    reserve(world, "alice", "b1", wake=True)
    world.wait(world.policy.power_timeout_s + 1)
    first, second = world.powers
    assert first.id == second.id
    world.powers.remove(first)
    world.obey_power(second, ok=False)
    (lease,) = world.scheduler.ledger.people.values()
    assert lease.held
    assert "could not be switched on" in lease.reason
    world.wait(300)
    assert world.powers == []


def test_off_when_done_before_anybody_else_gets_it(make_world):
    world = make_world(Policy(leases=LeaseRules(off_when_done=True)))
    world.up("b1")
    reserve(world, "alice", "b1")
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    release(world, "b1")
    assert world.leases == {}
    (power,) = world.powers
    assert (power.power, power.purpose, power.token) == (PowerAction.OFF, Purpose.SLEEP, None)
    world.obey_power(power)
    assert world.state(job) is JobState.WAKING, "and then it starts afresh"
    world.wait(0)
    assert world.scheduler.ledger.closing == {}


def test_or_left_on_as_its_person_says(make_world):
    world = make_world(Policy(leases=LeaseRules(off_when_done=True)))
    world.up("b1")
    reserve(world, "alice", "b1", off=False)
    release(world, "b1")
    assert world.powers == []


def test_a_board_that_cannot_be_switched_off_is_said_and_given_free(make_world):
    world = make_world()
    world.up("b1")
    reserve(world, "alice", "b1", off=True)
    release(world, "b1")
    for _ in range(3):
        world.obey_power(world.powers[0], ok=False)
        world.wait(world.policy.power_timeout_s + 1)
    assert any("could not be switched off" in note.text for note in world.notes)
    assert world.scheduler.ledger.closing == {}


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_broken_board_may_be_had_by_name_to_mend_it(world):
    world.phase("b1", Phase.FAULT, "no DHCP")
    assert reserve(world, "alice", "b1").error is None
    waits = reserve(world, "bob", "b1", wait=True)
    release(world, "b1", "alice")
    world.wait(1)
    assert lines(world)[waits.data["lease"]][1] == "b1"
    world.up("b1")
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    assert world.state(job) is JobState.QUEUED


def test_a_board_that_takes_no_jobs_is_for_people(make_world):
    world = make_world(Policy(booting_cap=1), labels={"b1": {"work": False}, "b2": {"work": False}})
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    assert reserve(world, "alice", "b1", wake=True).error is None
    waits = reserve(world, "bob", "b2", wake=True, wait=True)
    assert [power.board for power in world.powers] == ["b1"], "the fuse holds for it, too"
    world.obey_power(world.powers[0])
    world.up("b1")
    world.wait(1)
    assert lines(world)[waits.data["lease"]][1] == "b2"
    assert [power.board for power in world.powers] == ["b2"]
    assert world.state(job) is JobState.QUEUED


def test_a_retired_board_is_nobodys(world):
    world.up("b1")
    world.scheduler.ledger.retired.add("b1")
    world.down("b1", Phase.FAULT)
    assert reserve(world, "alice", "b1", wait=True).error.message == "board b1 is retired"
    assert lines(world) == {}


def test_given_back_while_the_agent_is_away_it_is_switched_off_when_it_returns(world):
    world.up("b1")
    reserve(world, "alice", "b1", off=True)
    world.present["lab1"] = Presence.LOST
    world.tell_agent()
    release(world, "b1", "alice")
    world.wait(600)
    assert world.powers == []
    world.present["lab1"] = Presence.ONLINE
    world.tell_agent()
    world.wait(1)
    assert [(power.board, power.power) for power in world.powers] == [("b1", PowerAction.OFF)]


def test_the_agent_goes_away_and_the_lease_stays(world):
    world.up("b1")
    reserve(world, "alice", "b1")
    world.present["lab1"] = Presence.LOST
    world.tell_agent()
    world.wait(600)
    assert "b1" in world.leases
    refused = reserve(world, "bob", "b2")
    assert "its agent lab1 is away" in refused.error.message
    world.present["lab1"] = Presence.ONLINE
    world.tell_agent()
    world.wait(1)
    assert lines(world) == {"lease-1": ("alice", "b1", None)}


def test_kept_over_a_kill_and_ended_if_its_time_was_over_meanwhile(world):
    world.up("b1")
    world.up("b2")
    reserve(world, "alice", "b1", for_s=HOUR_S, comment="mine")
    reserve(world, "bob", "b2", for_s=60)
    reserve(world, "carol", "b1", for_s=60, wait=True)
    tokens = dict(world.leases)
    world.mono += 600
    world.start()
    assert lines(world)["lease-1"] == ("alice", "b1", None)
    assert "lease-2" not in lines(world)
    assert lines(world)["lease-3"][:2] == ("carol", None)
    assert world.leases == {"b1": tokens["b1"]}
    assert world.scheduler.ledger.people["b1"].comment == "mine"
    world.wait(3000)
    assert lines(world)["lease-3"][:2] == ("carol", "b1"), "ten minutes were gone, not begun anew"
    assert reserve(world, "dave", "b3").data["lease"] == "lease-4", "no id is given out twice"


def test_what_one_waits_for_survives_a_restart(world):
    wants = (Want("arch", "==", ("arm64", "armhf")), Want("usb", "==", (True,)), Want("memory_mb", ">=", ("2048",)))
    waits = reserve(world, "alice", wants=wants, wait=True, wake=True, off=True, comment="c")
    before = world.scheduler.ledger.asked[1]
    world.start()
    assert world.scheduler.ledger.asked[1] == before
    assert waits.data["waits"] == lines(world)["lease-1"][2]
    world.labels["b2"] = {"usb": True, "memory_mb": 4096}
    world.settle()
    assert lines(world)["lease-1"][1] == "b2"


def test_ended_leases_are_forgotten_but_for_the_newest(world):
    for _ in range(5):
        reserve(world, "alice", "b1")
        release(world, "b1")
    reserve(world, "bob", "b2")
    reserve(world, "alice", "b1")
    release(world, "b1")
    forget_leases(world.db, 2)
    kept = [row["number"] for row in world.db.execute("SELECT number FROM leases ORDER BY number")]
    assert kept == [6, 7], "6 is held, 7 is the newest"
    assert last_lease(world.db) == 7


def test_killed_between_saving_and_saying(make_world):
    world = make_world()
    order = Reserve("a", "alice", Needs("b1"), HOUR_S, wake=True)
    for action in world.scheduler.handle(order, world.now()):
        if isinstance(action, h.Saved):
            _save(world.db, action)
    world.start()  # nothing of it was said
    assert "b1" in world.leases
    world.wait(1)
    assert [power.id for power in world.powers] == ["wake-lease-1"]


def test_killed_before_the_board_was_switched_off(world):
    world.up("b1")
    reserve(world, "alice", "b1", off=True)
    release(world, "b1")
    world.powers.clear()
    world.start()
    world.wait(1)
    assert [(power.board, power.power) for power in world.powers] == [("b1", PowerAction.OFF)]
    world.obey_power(world.powers[0])
    world.start()
    world.wait(1)
    assert world.powers == []


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
def test_a_jump_of_the_walls_clock_changes_no_lease_but_the_time_that_is_told(world, jump, monkeypatch):
    world.up("b1")
    reserve(world, "alice", "b1", for_s=HOUR_S)
    right = World.now
    monkeypatch.setattr(World, "now", lambda self: replace(right(self), wall=right(self).wall + jump))
    actions = world.wait(10)
    (put,) = [a for a in actions if isinstance(a, h.PutLease)]
    assert timedelta(minutes=59) < put.expires - world.now().wall < timedelta(minutes=61)
    world.wait(HOUR_S - 20)
    assert "b1" in world.leases
    world.wait(10)
    assert world.leases == {}


def test_a_clock_put_back_over_a_restart_makes_no_lease_longer_than_it_was(world, monkeypatch):
    world.up("b1")
    reserve(world, "alice", "b1", for_s=HOUR_S)
    right = World.now
    monkeypatch.setattr(World, "now", lambda self: replace(right(self), wall=right(self).wall - timedelta(days=1)))
    world.start()
    world.wait(HOUR_S)
    assert world.leases == {}


def test_a_lease_that_the_store_does_not_know_is_taken_off_mqtt(world):
    world.up("b1")
    reserve(world, "alice", "b1")
    world.db.execute("DELETE FROM leases")
    world.start()
    assert world.leases == {}
    assert reserve(world, "bob", "b1").data["token"] > 1


def test_who_asks_before_the_farm_is_known_is_answered_when_it_is(world):
    world.up("b1")
    world.tell(h.Disconnected())
    assert reserve(world, "alice", "b1") is None
    assert reserve(world, "bob", "b1", wait=True) is None
    world.settle()
    first, second = world.replies
    assert first.data["board"] == "b1"
    assert second.data["waits"] == "waits for b1 to be free"


def test_or_is_refused_when_the_line_breaks_again(world):
    world.tell(h.Disconnected())
    reserve(world, "alice", "b1", wait=True)
    world.tell(h.Disconnected())
    assert world.replies[-1].error.kind is ErrorKind.BUSY
    world.settle()
    assert lines(world) == {}
    assert world.leases == {}, "nobody would know that he has it"


def test_a_thousand_wait(world):
    world.up("b1")
    reserve(world, "first", "b1")
    for i in range(1000):
        assert reserve(world, f"p{i}", "b1", wait=True).error is None
    world.start()
    for i in range(20):
        release(world, "b1")
        assert world.scheduler.ledger.people["b1"].holder == f"p{i}"
    assert len(lines(world)) == 981


def test_no_more_than_allowed_wait(make_world):
    world = make_world(Policy(leases=LeaseRules(most_waiting=2)))
    for who in ("a", "b"):
        reserve(world, who, wants=(Want("arch", "==", ("vax",)),), wait=True)
    assert reserve(world, "c", "b1", wait=True).error.kind is ErrorKind.BUSY


# --- the table -----------------------------------------------------------------------------------------------------
