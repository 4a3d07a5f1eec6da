import hypothesis.strategies as st
from hypothesis import given

from broker.matching.fairness import MOST_SUBMITTERS, USE_HALF_LIFE_S, Shares


def test_fewer_boards_now_then_less_use_of_late():
    shares = Shares()
    shares.began("ci")
    assert shares.share("ada") < shares.share("ci")
    shares.ended("ci", 60, now=100)
    shares.began("ada")
    shares.ended("ada", 10, now=100)
    assert shares.share("ada") < shares.share("ci")
    assert shares.share("new") < shares.share("ada")


def test_use_halves_every_hour():
    shares = Shares()
    shares.began("ci")
    shares.ended("ci", 100, now=0)
    shares.began("ada")
    shares.ended("ada", 60, now=USE_HALF_LIFE_S)
    assert shares.used_s("ci", USE_HALF_LIFE_S) == 50
    assert shares.share("ci") < shares.share("ada")


def test_a_new_name_for_every_job_does_not_fill_the_memory():
    shares = Shares()
    for n in range(MOST_SUBMITTERS + 1):
        shares.began(f"u{n}")
        shares.ended(f"u{n}", n, now=0)
    assert len(shares._used) == MOST_SUBMITTERS // 2
    assert shares.share(f"u{MOST_SUBMITTERS}") > shares.share("u1")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e6), st.floats(0, 1e8)), max_size=30))
def test_no_time_is_too_long(uses):
    shares, now = Shares(), 0.0
    for who, lasted_s, passed_s in uses:
        now += passed_s
        shares.began(who)
        shares.ended(who, lasted_s, now)
        assert shares.share(who)[0] == 0
        assert lasted_s * 0.999 - 0.01 <= shares.used_s(who, now) < float("inf")
    assert all(shares.used_s(who, now + 1e9) < 1e7 for who in "abc")
