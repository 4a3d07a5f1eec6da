"""How often one client may ask, and what one board can take."""

import asyncio

import pytest

from netboot.tftp_limits import BURST, MAX_CLIENTS, Limits, RequestLimits
from netboot.tftp_process import SendFile


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


def test_one_client_has_a_rate_of_its_own_until_it_is_taken_back():
    limits = RequestLimits(100)
    limits.set_rate("slow", 10)
    limits.set_rate("free", 0)
    assert all(limits.admit("free", 0.0) for _ in range(10_000))
    for client, rate in (("slow", 10), ("other", 100)):
        assert sum(limits.admit(client, 0.0) for _ in range(500)) == BURST
        admitted = sum(limits.admit(client, second / 1000) for second in range(1000))
        assert rate - 1 <= admitted <= rate
    limits.set_rate("slow", 100)
    assert sum(limits.admit("slow", 2 + second / 1000) for second in range(1000)) > 100


def test_own_rates_are_bounded_and_hold_where_there_is_no_general_one():
    limits = RequestLimits(0)
    for number in range(2 * MAX_CLIENTS):
        limits.set_rate(str(number), 5)
    assert len(limits._own) == MAX_CLIENTS
    last = str(2 * MAX_CLIENTS - 1)
    assert sum(limits.admit(last, 0.0) for _ in range(500)) == BURST
    for number in range(2 * MAX_CLIENTS):
        limits.admit(str(number), 0.0)
    assert len(limits._clients) <= MAX_CLIENTS


async def test_the_rate_of_a_profile_reaches_the_worker(farm, raw_client):
    farm.add_file("f", b"x")
    farm.files["f"] = SendFile(farm.files["f"], Limits(requests_per_s=1))
    client = raw_client(farm.port)

    def talk():
        for _ in range(BURST):
            client.ask("f")
            client.receive()
            client.ack(1)
        client.ask("f")
        return client.silent(0.3)

    assert await asyncio.to_thread(talk)
    assert len(farm.asked) <= BURST + 1


@pytest.mark.parametrize(("rollover", "blocks", "warned"), [(None, 65_536, True), (None, 65_535, False),
                                                            (0, 65_536, False), (1, 65_536, False)])  # fmt: skip
async def test_a_file_that_a_board_cannot_count_is_warned_of_once(farm, raw_client, caplog, rollover, blocks, warned):
    path = farm.add_file("f", bytes(8 * (blocks - 1)))
    farm.files["f"] = SendFile(path, Limits(rollover=rollover))
    for _ in range(2):
        client = raw_client(farm.port)
        client.ask("f", "blksize", 8)
        assert (await asyncio.to_thread(client.receive))[0] == 6  # it is served all the same
        client.error()
    async with asyncio.timeout(60):
        while len(farm.done) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [f"f to 127.0.0.1 needs {blocks} blocks of 8 octets" in line for line in told] == [True] * warned
