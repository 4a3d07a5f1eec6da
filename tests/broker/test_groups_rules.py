"""What holds for groups of jobs whatever happens in which order."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.groups.matching import Wish, choose, could_do
from broker.jobs.labels import Want
from broker.ledger import Policy
from broker.matching.board_pool import BoardPool
from broker.matching.standing import Standing
from broker.matching.waiting import Needs
from tests.broker.conftest import World
from tests.broker.group_farm import GROUP, PAIR, call
from wire.phases import JobState, Phase


def disturb(world, choice):
    """One thing that can happen to a farm."""
    name = list(world.boards)[choice % 3]
    board = world.boards[name]
    if choice < 3 and world.powers:
        world.obey_power(world.powers[0])
    elif choice < 6 and board.phase in (Phase.STARTING, Phase.READY):
        world.up(name)
    elif choice < 9:
        accept_if_offered(world, name)
    elif choice < 10 and board.work is not None:
        world.finish(name)
    elif choice == 10:
        world.down(name)
    elif choice == 11:
        world.start()
    elif choice == 12 and board.work is not None:
        call(world, name, "sync x", f"c{len(world.stops)}")


def accept_if_offered(world, name):
    board = world.boards[name]
    offer = world.offers.get(name)
    if offer is not None and world.leases.get(name) == offer.token and board.online and board.work is None:
        world.accept(name)


def go_on(world, name):
    """What a good board does next."""
    board = world.boards[name]
    if board.work is not None and world.leases.get(name) == board.work[1]:
        world.finish(name)
    elif board.work is not None:
        board.work = None
        world.tell_self(board)
        world.phase(name, Phase.READY)
    elif board.phase is Phase.STARTING:
        world.up(name)
    else:
        accept_if_offered(world, name)


@settings(max_examples=60, deadline=None)
@given(choices=st.lists(st.integers(0, 13), max_size=60), more=st.booleans())
def test_whatever_happens_a_group_has_all_its_boards_or_none_and_ends(choices, more):
    world = World(Policy(booting_cap=2, wake_timeout_s=60, bench_s=1))
    world.more = more
    jobs = [world.submit(PAIR), world.submit(GROUP), world.submit("name: s\nsteps: [x]\n")]
    for choice in choices:
        disturb(world, choice)
        world.wait(5)
        ledger = world.scheduler.ledger
        for group in world.scheduler.groups.groups.values():
            alive = [job for job in group.jobs if not job.state.ended]
            boards = [job for job in alive if job.board in ledger.held and ledger.held[job.board].job is job]
            assert len(boards) == (0 if group.job.state is JobState.QUEUED else len(alive))
    for _ in range(400):
        for power in list(world.powers):
            world.obey_power(power)
        for name in world.boards:
            go_on(world, name)
        world.wait(5)
        if all(job in world.ends for job in jobs):
            break
    assert all(job in world.ends for job in jobs), {job: world.summaries[job].reason for job in jobs}
    world.db.close()


WISHES = st.lists(st.tuples(st.sampled_from([None, "b0", "b1"]), st.sampled_from([None, 1, 2])), min_size=1, max_size=4)
POOL = st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from(list(Standing))), max_size=5)


@given(WISHES, POOL)
def test_boards_are_found_exactly_when_there_are_any(wishes, boards):
    pool = BoardPool()
    pool.ask_for(["size"])
    for n, (size, standing) in enumerate(boards):
        pool.put(f"b{n}", {"size": size}, standing)
    wanted = [Wish(Needs(board, () if size is None else (Want.parse("size", size),))) for board, size in wishes]
    free = [entry for entry in pool.entries.values() if entry.standing < Standing.TAKEN]
    possible = any(
        all(could_do(wish.needs, entry) for wish, entry in zip(wanted, order, strict=True))
        for order in itertools.permutations(free, len(wanted))
    )
    found = choose(wanted, pool)
    assert (found is not None) == possible
    if found is not None:
        assert len({entry.name for entry in found}) == len(wanted)
        assert all(could_do(wish.needs, entry) for wish, entry in zip(wanted, found, strict=True))
