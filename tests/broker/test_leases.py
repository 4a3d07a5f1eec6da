"""Leases of people, on paper: the queue they share with jobs, their end, power, restarts, clocks."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker import happenings as h
from broker.job_store import _save
from broker.labels import Want
from broker.lease import TABLE, LeaseEvent, LeaseRules, LeaseStageError, PersonLease, lease_number
from broker.lease_happenings import ExtendLease, HandOver, Release, Reserve, TellLease
from broker.lease_store import forget_leases, last_lease
from broker.ledger import Policy
from broker.waiting import Needs
from tests.broker.conftest import EPOCH, World
from wire.phases import ErrorKind, JobState, LeaseStage, Phase, PowerAction, Presence, Purpose

HOUR_S = 3600.0
ARM = (Want("arch", "==", ("arm64",)),)


def ask(world, order):
    """The answer to an order; what was told of leases on the way is kept in `world.told`."""
    actions = world.tell(order)
    world.told = getattr(world, "told", []) + [a.notice for a in actions if isinstance(a, TellLease)]
    found = [reply for reply in world.replies if reply.tag == order.tag]
    return found[-1] if found else None


def reserve(world, holder, board=None, wants=(), for_s=HOUR_S, **how):
    needs = Needs(board, wants, still=not how.get("wake", False))
    return ask(world, Reserve(f"t{next(world.tags)}", holder, needs, for_s, **how))


def release(world, lease, holder=None):
    return ask(world, Release(f"t{next(world.tags)}", lease, holder))


def extend(world, lease, for_s, holder=None):
    return ask(world, ExtendLease(f"t{next(world.tags)}", lease, for_s, holder))


def hand_over(world, lease, to, holder=None):
    return ask(world, HandOver(f"t{next(world.tags)}", lease, to, holder))


def lines(world):
    return {lease.id: (lease.holder, lease.board, waits) for lease, waits in world.scheduler.people.lines()}


def notices(actions):
    return [(a.notice.lease, a.notice.stage) for a in actions if isinstance(a, TellLease)]


def test_a_board_by_name_is_mine_until_i_give_it_back(world):
    world.up("b1")
    reply = reserve(world, "alice", "b1", comment="U-Boot")
    assert reply.error is None
    assert (reply.data["lease"], reply.data["board"], reply.data["holder"]) == ("lease-1", "b1", "alice")
    assert world.leases == {"b1": reply.data["token"]}
    assert reply.data["expires"] == (world.now().wall + timedelta(hours=1)).isoformat()
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    world.wait(1)
    assert world.state(job) is JobState.QUEUED, "no job takes a reserved board"
    given_back = release(world, "lease-1", "alice")
    assert given_back.data == {"lease": "lease-1", "board": "b1"}
    assert world.state(job) is JobState.OFFERED
    assert world.leases["b1"] > reply.data["token"]


def test_what_is_told_on_mqtt_outlasts_the_lease_a_little_and_says_who_since_and_why(world):
    world.up("b1")
    actions = world.tell(Reserve("t", "alice", Needs("b1"), HOUR_S, "U-Boot"))
    put = next(a for a in actions if isinstance(a, h.PutLease))
    now = world.now().wall
    assert (put.holder, put.kind, put.since, put.comment) == ("alice", "person", now, "U-Boot")
    assert timedelta(seconds=3610) < put.expires - now <= timedelta(seconds=3660)


def test_any_board_with_the_labels_and_a_job_takes_another(make_world):
    world = make_world(boards=("b1", "b2"))
    world.up("b1")
    world.up("b2")
    first = reserve(world, "alice", wants=ARM)
    job = world.submit()
    assert world.state(job) is JobState.OFFERED
    assert {first.data["board"], world.scheduler.ledger.jobs[job].board} == {"b1", "b2"}


@pytest.mark.parametrize(
    ("board", "wants", "kind", "words"),
    [
        ("nix", (), ErrorKind.UNKNOWN_BOARD, "board nix is not known"),
        (None, (Want("arch", "==", ("vax",)),), ErrorKind.NOT_ALLOWED, "no known board has arch=vax"),
        ("b1", (Want("arch", "==", ("vax",)),), ErrorKind.NOT_ALLOWED, "board b1 does not have arch=vax"),
    ],
)
def test_what_nobody_can_have_is_said_at_once(world, board, wants, kind, words):
    world.up("b1")
    reply = reserve(world, "alice", board, wants)
    assert reply.error.kind is kind
    assert words in reply.error.message
    assert lines(world) == {}
    assert world.leases == {}


def test_two_people_at_once_and_who_waits_gets_it_in_turn(world):
    world.up("b1")
    world.more = True
    for tag, who in (("x", "alice"), ("y", "bob"), ("z", "carol")):
        world.tell(Reserve(tag, who, Needs("b1"), HOUR_S, "c", wait=who == "bob"))
    world.more = False
    world.wait(0)
    by_tag = {reply.tag: reply for reply in world.replies}
    assert by_tag["x"].data["board"] == "b1"
    assert by_tag["y"].data == {"lease": "lease-2", "waits": "waits for b1 to be free"}
    assert by_tag["z"].error.kind is ErrorKind.NOT_ALLOWED
    assert "held by alice until" in by_tag["z"].error.message
    assert lines(world)["lease-2"] == ("bob", None, "waits for b1 to be free")
    release(world, "b1", "alice")
    assert lines(world) == {"lease-2": ("bob", "b1", None)}
    assert ("lease-2", LeaseStage.HELD) in [(n.lease, n.stage) for n in world.told]


def test_a_person_never_takes_a_board_from_a_running_job(world):
    world.up("b1")
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    world.accept("b1")
    refused = reserve(world, "alice", "b1")
    assert refused.error.kind is ErrorKind.NOT_ALLOWED
    assert f"{job} works on it" in refused.error.message
    waits = reserve(world, "alice", "b1", wait=True)
    world.wait(1)
    assert world.state(job) is JobState.RUNNING
    world.finish("b1")
    world.wait(1)
    assert lines(world)[waits.data["lease"]] == ("alice", "b1", None)
    assert extend(world, job, 60).error.kind is ErrorKind.NOT_FOUND


def test_the_lease_of_a_job_is_no_persons_to_change(world):
    world.up("b1")
    job = world.submit("name: t\nboard: b1\nsteps: [make]\n")
    for order in (release, lambda w, name: extend(w, name, 60), lambda w, name: hand_over(w, name, "bob")):
        refused = order(world, "b1")
        assert refused.error.kind is ErrorKind.NOT_ALLOWED
        assert "cancel that job" in refused.error.message
    assert world.state(job) is JobState.OFFERED


def test_people_and_jobs_share_the_queue_fairly(make_world):
    """Alice holds a board, so her second wish comes after a job whose submitter has none, though it is the older."""
    world = make_world(boards=("b1", "b2", "b3"))
    world.up("b1")
    assert reserve(world, "alice", "b1").error is None
    world.up("b2")
    busy = reserve(world, "zoe", "b2")
    assert busy.error is None
    second = reserve(world, "alice", "b2", wait=True)
    bob = reserve(world, "bob", "b2", wait=True)
    job = world.submit("name: t\nboard: b2\nsteps: [make]\n")
    release(world, "b2", "zoe")
    assert lines(world)[bob.data["lease"]][1] == "b2", "he holds nothing, and asked before the job"
    release(world, "b2", "bob")
    assert world.state(job) is JobState.OFFERED, "its submitter holds nothing"
    assert lines(world)[second.data["lease"]][1] is None


def test_it_ends_by_itself_after_a_warning(make_world):
    world = make_world(Policy(leases=LeaseRules(warn_s=600)))
    world.up("b1")
    reserve(world, "alice", "b1", for_s=HOUR_S)
    assert notices(world.wait(HOUR_S - 601)) == []
    assert notices(world.wait(2)) == [("lease-1", LeaseStage.ENDING)]
    assert notices(world.wait(300)) == [], "once"
    assert notices(world.wait(299)) == [("lease-1", LeaseStage.ENDED)]
    assert world.leases == {}
    assert lines(world) == {}


def test_a_short_lease_warns_in_its_last_quarter(world):
    world.up("b1")
    reserve(world, "alice", "b1", for_s=400)
    assert notices(world.wait(299)) == []
    assert notices(world.wait(2)) == [("lease-1", LeaseStage.ENDING)]


def test_extending_never_shortens_and_takes_the_warning_back(world):
    world.up("b1")
    first = reserve(world, "alice", "b1", for_s=HOUR_S)
    assert extend(world, "lease-1", 60, "alice").data["expires"] == first.data["expires"]
    world.wait(3500)
    assert world.scheduler.ledger.people["b1"].stage is LeaseStage.ENDING
    later = extend(world, "b1", HOUR_S, "alice")
    assert later.data["expires"] == (world.now().wall + timedelta(hours=1)).isoformat()
    assert world.scheduler.ledger.people["b1"].stage is LeaseStage.HELD
    world.wait(3000)
    assert "b1" in world.leases


def test_nobody_else_may_change_it_where_the_holder_counts(world):
    world.up("b1")
    reserve(world, "alice", "b1")
    for reply in (release(world, "b1", "bob"), extend(world, "b1", 9999, "bob"), hand_over(world, "b1", "eve", "bob")):
        assert reply.error.kind is ErrorKind.NOT_ALLOWED
        assert "reserved by alice, not by bob" in reply.error.message
    assert release(world, "b1").error is None, "an operator may, the API gives no holder for one"


def test_too_long_is_refused(make_world):
    world = make_world(Policy(leases=LeaseRules(longest_s=HOUR_S)))
    world.up("b1")
    assert reserve(world, "alice", "b1", for_s=HOUR_S + 1).error.kind is ErrorKind.BAD_REQUEST
    reserve(world, "alice", "b1", for_s=HOUR_S)
    assert extend(world, "b1", HOUR_S + 1).error.kind is ErrorKind.BAD_REQUEST


def test_handing_over_makes_the_old_token_worthless(world):
    world.up("b1")
    first = reserve(world, "alice", "b1")
    second = hand_over(world, "lease-1", "bob", "alice")
    assert second.data["token"] > first.data["token"]
    assert world.leases == {"b1": second.data["token"]}
    assert second.data["expires"] == first.data["expires"]
    assert lines(world) == {"lease-1": ("bob", "b1", None)}
    assert release(world, "b1", "alice").error.kind is ErrorKind.NOT_ALLOWED
    assert hand_over(world, "b1", "bob").error.kind is ErrorKind.BAD_REQUEST


def test_one_who_waits_may_leave_the_queue_and_not_hand_over_his_place(world):
    world.up("b1")
    reserve(world, "alice", "b1")
    reserve(world, "bob", "b1", wait=True)
    assert hand_over(world, "lease-2", "eve", "bob").error.kind is ErrorKind.NOT_ALLOWED
    assert extend(world, "lease-2", 60, "bob").error.kind is ErrorKind.NOT_ALLOWED
    assert release(world, "lease-2", "bob").data == {"lease": "lease-2"}
    release(world, "b1")
    assert world.leases == {}
    assert release(world, "lease-2", "bob").error.kind is ErrorKind.NOT_FOUND


# --- power ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("stage", list(LeaseStage))
@pytest.mark.parametrize("event", list(LeaseEvent))
def test_only_the_table_changes_a_stage(stage, event):
    lease = PersonLease(1, "alice", Needs(), 60, EPOCH, stage=stage)
    if event in TABLE[stage]:
        lease.step(event)
        assert lease.stage is TABLE[stage][event]
    else:
        with pytest.raises(LeaseStageError, match="lease-1"):
            lease.step(event)


@pytest.mark.parametrize(
    ("text", "number"), [("lease-12", 12), ("lease-0", None), ("lease-", None), ("job-1", None), ("lease-\u0661", None)]
)
def test_ids(text, number):
    assert lease_number(text) == number


PEOPLE = ("alice", "bob", "carol")
BOARDS = ("b1", "b2")


class People(RuleBasedStateMachine):
    """People, jobs, restarts and time in any order. The rules of `World` hold throughout: no board twice, tokens that
    rise, none put to sleep while somebody holds it."""

    @initialize(off=st.booleans())
    def begin(self, off):
        self.world = World(Policy(leases=LeaseRules(off_when_done=off)), boards=BOARDS)

    @rule(who=st.sampled_from(PEOPLE), board=st.sampled_from((*BOARDS, None)), for_s=st.floats(60, 9000),
          wait=st.booleans(), wake=st.booleans())  # fmt: skip
    def reserve(self, who, board, for_s, wait, wake):
        reply = reserve(self.world, who, board, for_s=for_s, wait=wait, wake=wake)
        assert reply is not None

    @rule(board=st.sampled_from(BOARDS), who=st.sampled_from((*PEOPLE, None)))
    def release(self, board, who):
        assert release(self.world, board, who) is not None

    @rule(board=st.sampled_from(BOARDS), to=st.sampled_from(PEOPLE))
    def hand_over(self, board, to):
        assert hand_over(self.world, board, to) is not None

    @rule(board=st.sampled_from(BOARDS))
    def job(self, board):
        self.world.submit(f"name: t\nboard: {board}\nsteps: [make]\n")

    @rule(seconds=st.floats(0, 4000))
    def wait(self, seconds):
        self.world.wait(seconds)

    @rule()
    def obey(self):
        if self.world.powers:
            self.world.obey_power(self.world.powers[0])

    @rule(board=st.sampled_from(BOARDS))
    def up(self, board):
        if self.world.boards[board].phase not in {Phase.OFF, Phase.SLEEPING}:
            self.world.up(board)

    @rule()
    def killed(self):
        self.world.start()

    @invariant()
    def every_lease_is_told_and_one_holds(self):
        if not hasattr(self, "world"):
            return
        ledger = self.world.scheduler.ledger
        assert not ledger.people.keys() & ledger.held.keys(), "a person's and a job's"
        assert self.world.leases.keys() == ledger.people.keys() | ledger.held.keys()
        for board, lease in ledger.people.items():
            assert lease.held
            assert lease.token == self.world.leases[board]
        assert not {lease.number for lease in ledger.people.values()} & ledger.asked.keys()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.db.close()


TestPeople = People.TestCase
TestPeople.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
