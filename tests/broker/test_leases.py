"""Leases of people, on paper: the queue they share with jobs, and their end."""

from datetime import timedelta

import pytest

from broker import happenings as h
from broker.jobs.labels import Want
from broker.leases.happenings import Reserve
from broker.leases.lease import LeaseRules
from broker.ledger import Policy
from broker.matching.waiting import Needs
from tests.broker.lease_orders import ARM, HOUR_S, extend, hand_over, lines, notices, release, reserve
from wire.phases import ErrorKind, JobState, LeaseStage


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
