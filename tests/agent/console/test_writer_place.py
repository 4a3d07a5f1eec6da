"""Who may type: the whole of it with hypothesis, and each rule by itself."""

from hypothesis import given
from hypothesis import strategies as st

from agent.console.writer_place import Binding, Writer, WriterPlace

LEASE = Binding("alice", 7)


def test_the_first_who_types_has_the_place():
    place, one, two = WriterPlace(60), Writer("one"), Writer("two")
    assert place.type(one, 0) is None
    assert place.type(two, 1) == "one is typing"
    assert place.type(one, 59) is None
    assert place.type(two, 100) == "one is typing", "each key counts anew"
    assert place.type(two, 119) is None
    assert place.type(one, 120) == "two is typing"


def test_it_is_free_when_its_holder_leaves_and_only_then():
    place, one, two = WriterPlace(60), Writer("one"), Writer("two")
    place.type(one, 0)
    assert not place.leave(two)
    assert place.type(two, 1) == "one is typing"
    assert place.leave(one)
    assert place.type(two, 2) is None


def test_anybody_may_take_it():
    place, one, two = WriterPlace(60), Writer("one"), Writer("two")
    place.type(one, 0)
    assert place.take(two, 1) is None
    assert place.type(one, 2) == "two is typing"


def test_a_lease_stands_above_the_place():
    place, one, alice = WriterPlace(60), Writer("one"), Writer("alice", 7)
    place.type(one, 0)
    assert place.type(one, 1, LEASE) == "the board is leased by alice"
    assert place.take(one, 1, LEASE) == "the board is leased by alice"
    assert place.take(alice, 2, LEASE) is None
    assert place.type(alice, 3, LEASE) is None
    assert place.type(alice, 4, Binding("bob", 8)) == "the board is leased by bob"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["type", "take", "leave"]),
            st.integers(0, 3),
            st.floats(0, 100),
            st.sampled_from([None, LEASE]),
        )
    )
)
def test_never_two_and_never_without_the_lease(steps):
    place = WriterPlace(60)
    writers = [Writer(str(n), token=7 if n == 0 else None) for n in range(4)]
    now, last = 0.0, {}
    for verb, who, wait, lease in steps:
        now += wait
        writer = writers[who]
        if verb == "leave":
            had = place.holder is writer
            assert place.leave(writer) is had
            assert place.holder is not writer
            continue
        before = place.holder
        refused = getattr(place, verb)(writer, now, lease)
        if refused is None:
            assert place.holder is writer
            assert lease is None or writer.token == lease.token
            last["typed"] = now
        else:
            assert place.holder is before
            assert lease is not None or (verb == "type" and now - last["typed"] < 60)


def test_who_keeps_it_gives_it_up_himself():
    place, job, other = WriterPlace(60), Writer("job-1", keeps=True), Writer("two")
    assert place.take(job, 0) is None
    assert place.type(other, 1000) == "job-1 is typing", "however long it was quiet"
    assert place.take(other, 1001) == "job-1 keeps the console until it is done"
    assert place.leave(job)
    assert place.take(other, 1002) is None
