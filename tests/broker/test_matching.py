import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broker.jobs.labels import Want
from broker.matching.assignment import Matcher, Needs
from broker.matching.board_pool import BoardPool
from broker.matching.fairness import Shares
from broker.matching.standing import Standing
from broker.matching.waiting import WaitingJobs
from broker.matching.why_waiting import names_shown, why_waits
from broker.sleep.wake_room import Shelf, WakeRoom

READY, COMING, ASLEEP, TAKEN, OUT = Standing


class Desk:
    """Boards and jobs by hand. `given` are (job, board) in the order in which they were matched."""

    def __init__(self, slots=99, shelves=()):
        self.pool, self.shares = BoardPool(), Shares()
        self.room = WakeRoom(slots, tuple(shelves))
        self.pool.ask_for(self.room.labels)
        self.waiting = WaitingJobs(self.pool)
        self.matcher = Matcher(self.pool, self.waiting, self.shares, self.room)
        self.given, self.now, self.jobs, self.submitter = [], 1000.0, {}, {}

    def board(self, name, standing=READY, why="", boot_s=0.0, **labels):
        if standing < TAKEN:
            self.room.note(name, labels, booting=standing is COMING)
        if self.pool.put(name, labels, standing, why, boot_s):
            self.matcher.board_freed(name)

    def job(self, number, board=None, avoid=(), priority=0, by="", boots=False, **labels):
        needs = Needs(board, tuple(Want.parse(k, v) for k, v in sorted(labels.items())), boots)
        self.jobs[number] = (needs, priority)
        self.submitter[number] = by
        line = self.waiting.add(number, needs, frozenset(avoid), priority, by)
        self.matcher.job_waits(line)
        return line

    def give(self, job, board, standing):
        self.given.append((job, board))
        self.shares.began(self.submitter[job])

    def run(self, ticked=False):
        before = len(self.given)
        self.matcher.run(self.give, self.now, ticked=ticked)
        return dict(self.given[before:])

    def why(self, number):
        return why_waits(self.waiting.line_of(number), self.waiting, self.pool)


def test_ready_before_coming_before_asleep():
    desk = Desk()
    for name, standing in (("a", ASLEEP), ("b", COMING), ("c", READY)):
        desk.board(name, standing)
    for n in range(1, 5):
        desk.job(n)
    assert desk.run() == {1: "c", 2: "b", 3: "a"}
    assert desk.why(4) == "waits for one of a, b, c to be free"


def test_a_job_that_brings_its_boot_takes_a_sleeping_board_and_room_to_wake():
    desk = Desk(slots=1)
    desk.board("a", READY)
    desk.board("b", ASLEEP)
    desk.job(1, boots=True)
    desk.job(2, boots=True)
    desk.job(3)
    assert desk.run() == {1: "b", 3: "a"}
    assert "turn to wake" in desk.why(2)


def test_the_plain_board_goes_first():
    desk = Desk()
    desk.board("a", gpu=True)
    desk.board("b")
    desk.job(1)
    desk.job(2, gpu=True)
    assert desk.run() == {1: "b", 2: "a"}


def test_a_scarce_board_is_kept_for_the_job_that_only_it_can_do():
    desk = Desk()
    desk.board("a", READY, gpu=True)
    desk.board("b", ASLEEP, rack=1, row=2)
    desk.job(1)  # older, and a ready board costs it nothing
    desk.job(2, gpu=True)
    assert desk.run() == {1: "b", 2: "a"}


def test_a_board_that_a_job_names_is_kept_for_it():
    desk = Desk()
    desk.board("a")
    desk.board("b")
    desk.job(1)
    desk.job(2, board="a")
    assert desk.run() == {1: "b", 2: "a"}


def test_of_two_the_board_that_fewer_queued_needs_ask_for():
    desk = Desk()
    for name in ("a1", "a2", "a3"):
        desk.board(name, gpu=True)
    for name in ("b1", "b2", "b3"):
        desk.board(name, fpga=True)
    desk.job(1, priority=1)
    desk.job(2, gpu=True)
    assert desk.run()[1] == "b1"


def test_a_more_urgent_job_is_not_kept_waiting_for_scarcity():
    desk = Desk()
    desk.board("a", gpu=True)
    desk.job(1, gpu=True)
    desk.job(2, priority=1)
    assert desk.run() == {2: "a"}


def test_the_board_that_boots_quickest():
    desk = Desk()
    desk.board("a", ASLEEP, boot_s=90)
    desk.board("b", ASLEEP, boot_s=20)
    desk.job(1)
    assert desk.run() == {1: "b"}


def test_one_that_waits_does_not_block_the_next():
    desk = Desk()
    desk.board("a", TAKEN)
    desk.board("b")
    desk.job(1, board="a")
    desk.job(2)
    assert desk.run() == {2: "b"}
    assert desk.why(1) == "waits for a to be free"


def test_a_board_that_failed_it_comes_last():
    desk = Desk()
    desk.board("a")
    desk.board("b", ASLEEP)
    desk.job(1, avoid=["a"])
    assert desk.run() == {1: "b"}
    desk.board("b", TAKEN)
    desk.job(2, avoid=["a"])
    assert desk.run() == {2: "a"}


def test_room_to_wake():
    desk = Desk(slots=1)
    desk.board("a", ASLEEP)
    desk.board("b", ASLEEP)
    desk.job(1)
    desk.job(2)
    assert desk.run() == {1: "a"}
    assert desk.why(2) == "waits for its turn to wake a board: as many boards as may are booting"
    assert desk.run() == {}
    desk.room.note("a", {}, booting=False)
    assert desk.run() == {2: "b"}


def test_shelves_have_caps_and_spacing_of_their_own():
    desk = Desk(shelves=[Shelf(booting_cap=1), Shelf(value="y", wake_spacing_s=10)])
    for n in range(3):
        desk.board(f"x{n}", ASLEEP, shelf="x")
        desk.board(f"y{n}", ASLEEP, shelf="y")
    for n in range(4):
        desk.job(n)
    assert set(desk.run().values()) == {"x0", "y0"}
    assert "booting on shelf" in desk.why(3)
    desk.room.note("x0", {"shelf": "x"}, booting=False)
    desk.room.note("y0", {"shelf": "y"}, booting=False)
    assert set(desk.run().values()) == {"x1"}
    assert "booting on shelf x" in desk.why(3) or "shelf y wakes one board every 10 s" in desk.why(3)
    desk.now += 10
    assert set(desk.run(ticked=True).values()) == {"y1"}


def test_reasons_say_what_is_missing():
    desk = Desk()
    desk.job(1)
    assert desk.why(1) == "no board is known yet: no agent has announced one"
    desk.board("a", TAKEN, arch="arm64", memory_mb=1024)
    desk.board("b", TAKEN, arch="x86_64", memory_mb=4096)
    desk.job(2, board="zz")
    desk.job(3, board="a", arch="mips")
    desk.job(4, arch="mips", gpu=True)
    desk.job(5, arch="arm64", memory_mb=">= 2048")
    desk.run()
    assert desk.why(2) == "board zz is not known: no agent has announced it"
    assert desk.why(3) == "board a does not have arch=mips"
    assert desk.why(4) == "no known board has arch=mips, gpu=true"
    assert desk.why(5) == "no known board has all of arch=arm64, memory_mb >= 2048 together"


def test_reasons_name_who_is_out_of_service():
    desk = Desk()
    desk.board("a", OUT, "in fault (fan)")
    desk.board("b", OUT, "its agent l is away")
    desk.job(1)
    desk.run()
    assert desk.why(1) == "no fitting board is in service: a: in fault (fan); b: its agent l is away"
    for n in range(7):
        desk.board(f"c{n}", OUT, "x")
    assert desk.why(1).endswith("and 5 more")
    assert names_shown(["b0", "b1", "b2", "b3"], 6) == "b0, b1, b2, b3 and 2 more"


def test_submitters_take_turns_within_a_priority():
    desk = Desk()
    for n in range(1, 7):
        desk.job(n, by="ci")
    desk.job(7, by="ada")
    desk.job(8, by="ada", priority=1)
    for n in range(4):
        desk.board(f"b{n}")
    # 8 is urgent; then ci has none; then both have one and the older goes first; then ada has fewer.
    assert list(desk.run()) == [8, 1, 2, 7]


BOARDS = [f"b{n}" for n in range(5)]
LABELS = st.fixed_dictionaries({}, optional={"x": st.integers(0, 2), "gpu": st.just(True)})
OPS = st.one_of(
    st.tuples(st.just("board"), st.sampled_from(BOARDS), st.sampled_from(Standing), LABELS),
    st.tuples(st.just("drop"), st.sampled_from(BOARDS)),
    st.tuples(
        st.just("job"),
        st.sampled_from([None, None, None, *BOARDS]),
        st.sets(st.sampled_from(BOARDS), max_size=2),
        st.integers(0, 2),
        st.sampled_from(["", "ada", "ci"]),
        LABELS,
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("tick")),
)


def apply(desk, op, number):
    match op:
        case ("board", name, standing, labels):
            desk.board(name, standing, **labels)
            desk.room.note(name, labels, booting=standing is COMING)
        case ("drop", name):
            desk.room.note(name, {}, booting=False)
            desk.pool.drop(name)
        case ("job", board, avoid, priority, by, labels):
            desk.job(number, board, avoid, priority, by, **labels)
        case ("cancel", job):
            desk.waiting.remove(job)
        case _:
            desk.now += 5


@given(st.lists(OPS, max_size=40), st.integers(0, 3))
def test_whatever_changes_nobody_waits_in_vain_and_nobody_is_passed_over(ops, slots):
    desk = Desk(slots)
    for number, op in enumerate(ops):
        apply(desk, op, number)
        free = {name: entry.standing for name, entry in desk.pool.entries.items() if entry.standing < TAKEN}
        waiting = {job: desk.waiting.line_of(job) for job in desk.jobs if job in desk.waiting}
        made = desk.run(ticked=op[0] == "tick")
        assert set(made) <= set(waiting)
        assert len(set(made.values())) == len(made)
        left = {job: line for job, line in waiting.items() if job not in made}
        assert set(left) == {job for job in desk.jobs if job in desk.waiting}
        for job, board in made.items():
            entry = desk.pool.entries[board]
            assert board in free and entry.standing is TAKEN
            assert waiting[job].wants_entry(entry)
            for other, line in left.items():  # nobody more urgent wanted this board
                assert not line.wants_entry(entry) or desk.jobs[other][1] <= desk.jobs[job][1]
        for line in left.values():  # the same by looking at every board
            for entry in desk.pool.entries.values():
                usable = entry.standing < ASLEEP or (
                    entry.standing is ASLEEP and desk.room.refusal(entry.labels, desk.now) is None
                )
                assert not (usable and line.wants_entry(entry)), f"{line.needs} waits although {entry.name} is free"


@given(st.lists(OPS, max_size=40))
def test_the_pool_counts_its_boards(ops):
    desk = Desk()
    for number, op in enumerate(ops):
        apply(desk, op, number)
        desk.run()
        for kind in desk.pool.kinds():
            free = [rank[2] for ranks in kind.free.values() for rank in ranks]
            assert sorted(free) == sorted(n for n in kind.boards if desk.pool.entries[n].standing < TAKEN)
            assert kind.free_count == len(free)
            assert (kind in desk.pool.free_kinds) == bool(free)
        assert sorted(n for kind in desk.pool.kinds() for n in kind.boards) == sorted(desk.pool.entries)


@pytest.mark.parametrize("rounds", [3])
def test_what_an_event_costs_does_not_grow_with_the_queue(rounds):
    def cost_s(depth):
        desk = Desk()
        for n in range(200):
            desk.board(f"b{n}", TAKEN, arch=("arm64", "armhf")[n % 2], memory_mb=1024 << n % 3)
        for n in range(depth):
            desk.job(
                n, by=f"user{n % 20}", priority=n % 5, arch=("arm64", "armhf")[n % 2], memory_mb=f">= {512 << n % 3}"
            )
        desk.run()
        began = time.thread_time()
        for n in range(100):
            desk.board(f"b{n}", READY, arch=("arm64", "armhf")[n % 2], memory_mb=1024 << n % 3)
            assert len(desk.run()) == 1
        return time.thread_time() - began

    small, large = (min(cost_s(depth) for _ in range(rounds)) for depth in (500, 20_000))
    assert large < 3 * small + 0.01, (
        f"100 boards: {small * 1000:.1f} ms with 500 queued, {large * 1000:.1f} ms with 20,000"
    )
