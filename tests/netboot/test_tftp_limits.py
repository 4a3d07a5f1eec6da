"""How often one client may ask."""

from netboot.tftp_limits import BURST, MAX_CLIENTS, RequestLimits


def test_a_burst_and_then_the_rate():
    limits = RequestLimits(100)
    assert sum(limits.admit("a", 0.0) for _ in range(500)) == BURST
    admitted = sum(limits.admit("a", second / 10_000) for second in range(20_000))  # 10,000 a second for 2 s
    assert 195 <= admitted <= 201
    assert limits.admit("b", 2.0)


def test_nobody_is_limited_by_0():
    limits = RequestLimits(0)
    assert all(limits.admit("a", 0.0) for _ in range(10_000))


def test_forged_senders_do_not_fill_the_memory():
    limits = RequestLimits(100)
    for number in range(3 * MAX_CLIENTS):
        assert limits.admit(str(number), 0.0)
    assert len(limits._clients) <= MAX_CLIENTS
    assert sum(limits.admit("late", 1000.0) for _ in range(BURST + 10)) == BURST
