"""The states of an outlet: every pair, and what the table promises."""

import pytest

from agent.learn.outlet_table import MOVING, TABLE, At, Happening, after


@pytest.mark.parametrize("state", At)
@pytest.mark.parametrize("happening", Happening)
def test_every_pair(state, happening):
    if (state, happening) in TABLE:
        assert after(state, happening) is TABLE[state, happening]
    else:
        with pytest.raises(LookupError, match=f"{state} cannot meet {happening}"):
            after(state, happening)


def test_a_switching_under_way_is_always_awaited():
    for state in MOVING:
        assert {happening for at, happening in TABLE if at is state} == {Happening.DONE, Happening.REFUSED}


def test_every_outlet_can_be_put_back():
    ends = {At.RESTORED, At.LOST}
    for state in At:
        seen, waiting = set(), [state]
        while waiting:
            at = waiting.pop()
            seen.add(at)
            waiting += [new for (old, _), new in TABLE.items() if old is at and new not in seen]
        assert seen & ends, state
