import hypothesis.strategies as st
from hypothesis import given

from broker.labels import Want
from broker.matching import Assignment, Candidate, Needs, Standing, Wish, fits, names_shown, plan


def board(name, standing=Standing.READY, why="", **labels):
    return Candidate(name, labels, standing, why)


def wish(job, board=None, avoid=(), **labels):
    return Wish(job, Needs(board, tuple(Want.parse(k, v) for k, v in sorted(labels.items()))), frozenset(avoid))


def given_to(made):
    return {a.job: a.board for a in made.assignments}


def test_ready_before_coming_before_asleep():
    farm = [board("a", Standing.ASLEEP), board("b", Standing.COMING), board("c")]
    made = plan([wish("j1"), wish("j2"), wish("j3"), wish("j4")], farm, 1)
    assert made.assignments == [
        Assignment("j1", "c", Standing.READY),
        Assignment("j2", "b", Standing.COMING),
        Assignment("j3", "a", Standing.ASLEEP),
    ]
    assert made.reasons == {"j4": "waits for one of a, b, c to be free"}


def test_the_plain_board_goes_first():
    made = plan([wish("any"), wish("gpu", gpu=True)], [board("a", gpu=True), board("b")], 0)
    assert given_to(made) == {"any": "b", "gpu": "a"}


def test_one_that_waits_does_not_block_the_next():
    made = plan([wish("first", board="a"), wish("second")], [board("a", Standing.TAKEN), board("b")], 0)
    assert given_to(made) == {"second": "b"}
    assert made.reasons["first"] == "waits for a to be free"


def test_boot_slots():
    farm = [board("a", Standing.ASLEEP), board("b", Standing.ASLEEP)]
    made = plan([wish("j1"), wish("j2")], farm, 1)
    assert given_to(made) == {"j1": "a"}
    assert "turn to wake" in made.reasons["j2"]


def test_a_board_that_failed_it_comes_last():
    assert given_to(plan([wish("j", avoid=["a"])], [board("a"), board("b", Standing.ASLEEP)], 1)) == {"j": "b"}
    assert given_to(plan([wish("j", avoid=["a"])], [board("a")], 1)) == {"j": "a"}


def reason(one, farm):
    return plan([one], farm, 0).reasons[one.job]


def test_reasons_say_what_is_missing():
    farm = [board("a", arch="arm64", memory_mb=1024), board("b", arch="x86_64", memory_mb=4096)]
    assert reason(wish("j"), []) == "no board is known yet: no agent has announced one"
    assert reason(wish("j", board="zz"), farm) == "board zz is not known: no agent has announced it"
    assert reason(wish("j", board="a", arch="mips"), farm) == "board a does not have arch=mips"
    assert reason(wish("j", arch="mips", gpu=True), farm) == "no known board has arch=mips, gpu=true"
    together = reason(wish("j", arch="arm64", memory_mb=">= 2048"), farm)
    assert together == "no known board has all of arch=arm64, memory_mb >= 2048 together"
    out = [board("a", Standing.OUT, "in fault (fan)"), board("b", Standing.OUT, "its agent l is away")]
    assert reason(wish("j"), out) == "no fitting board is in service: a: in fault (fan); b: its agent l is away"
    many = [board(f"b{n}", Standing.OUT, "x") for n in range(9)]
    assert reason(wish("j"), many).endswith("and 5 more")
    assert names_shown([f"b{n}" for n in range(6)]) == "b0, b1, b2, b3 and 2 more"


candidates = st.lists(
    st.builds(
        lambda n, standing, x: board(f"b{n}", standing, x=x),
        st.integers(0, 9),
        st.sampled_from(Standing),
        st.integers(0, 2),
    ),
    unique_by=lambda c: c.name,
)
wishes = st.lists(
    st.builds(
        lambda n, x, avoid: wish(f"j{n}", avoid=[f"b{a}" for a in avoid], x=x),
        st.integers(0, 99),
        st.integers(0, 3),
        st.sets(st.integers(0, 9), max_size=2),
    ),
    unique_by=lambda w: w.job,
)


@given(wishes, candidates, st.integers(0, 4))
def test_a_plan_is_fair(queue, farm, slots):
    made = plan(queue, farm, slots)
    by_name = {c.name: c for c in farm}
    by_job = {w.job: w for w in queue}
    assert {a.job for a in made.assignments} | set(made.reasons) == set(by_job)
    assert {a.job for a in made.assignments}.isdisjoint(made.reasons)
    assert len({a.board for a in made.assignments}) == len(made.assignments)
    assert sum(a.standing is Standing.ASLEEP for a in made.assignments) <= slots
    for a in made.assignments:
        assert fits(by_job[a.job].needs, by_name[a.board])
        assert by_name[a.board].standing < Standing.TAKEN
    # Nobody waits while a board that fits stands ready and free.
    free = {c.name for c in farm if c.standing < Standing.ASLEEP} - {a.board for a in made.assignments}
    for job in made.reasons:
        assert not any(fits(by_job[job].needs, by_name[name]) for name in free)
