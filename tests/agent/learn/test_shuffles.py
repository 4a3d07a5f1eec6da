"""Show: no wrong row in 20 shuffles, and what cannot be known is said to be unknown."""

import pytest

from agent.learn.findings import Row
from agent.learn.signs import Kind
from tests.agent.learn.shuffled import RULES, shuffled, wrong_rows
from tests.agent.learn.simulated_farm import SimBoard


@pytest.mark.parametrize("seed", range(20))
def test_no_wrong_row(seed: int) -> None:
    given = shuffled(seed)
    found = given.farm.run(given.experiment())
    assert wrong_rows(given, found) == []
    feeds = {frozenset(row.feed) for row in found.rows}
    missing = [board.name for board in given.boards if frozenset(board.fed_by) not in feeds and board.name != "silent"]
    assert missing == [], [str(u) for u in found.unknown] + [str(s) for s in found.strangers]
    silent = next(board for board in given.boards if board.name == "silent")
    because = {item.outlet: item.because for item in found.unknown}
    assert "nothing that goes with it was heard in " in because[silent.fed_by[0]]
    assert "and it draws 4.0 W: something is there" in because[silent.fed_by[0]]
    assert given.farm.on == given.outlets, "everything is as it was found"
    for row in found.rows:
        whole_and_measured(row, next(board for board in given.boards if set(board.fed_by) == set(row.feed)))


def whole_and_measured(row: Row, board: SimBoard) -> None:
    """All of the board is in its row, with its boot time and its watts."""
    consoles = {subject.name for subject in board.says if subject.kind is Kind.CONSOLE}
    macs = {subject.name for subject in board.says if subject.kind is Kind.MAC}
    assert (set(row.consoles), set(row.macs)) == (consoles, macs), row
    if board.ready is not None:
        assert row.boot_s == pytest.approx(board.ready[1], rel=0.15, abs=0.3)
    assert row.busy_w == pytest.approx(board.watts, abs=0.1)
    assert row.confidence >= 1 - 1 / RULES.odds
