"""When a subject was heard, asked for stretches of time."""

from hypothesis import given
from hypothesis import strategies as st

from agent.learn.history import FOREVER, MERGED_S, Heard, Span

TIMES = st.lists(st.integers(0, 200), max_size=30).map(lambda steps: sorted(set(steps)))


@given(times=TIMES, begin=st.integers(0, 200), lasts=st.integers(0, 100))
def test_first_and_last_are_those_of_a_plain_search(times, begin, lasts):
    heard = Heard()
    for at in times:
        heard.add(float(at))  # whole seconds: nothing is merged
    assert MERGED_S < 1
    within = [at for at in times if begin <= at <= begin + lasts]
    span = Span(begin, begin + lasts)
    assert heard.first_in(span) == (within[0] if within else None)
    assert heard.last_in(span) == (within[-1] if within else None)


def test_what_is_there_spoke_last_when_it_came():
    heard = Heard([Span(10.0, FOREVER)], present=True)
    assert heard.last_in(Span(5.0, 60.0)) == 10.0
    assert heard.last_in(Span(20.0, 60.0)) == 20.0, "it was there already"
    assert heard.last_in(Span(0.0, 9.0)) is None
