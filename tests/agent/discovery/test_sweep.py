"""The sweep's own rules: how many at once, how fast, and which networks."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from agent.discovery.sweep import NetworkError, addresses_of, ask_each, networks_of


def test_networks_by_words():
    assert [str(one) for one in addresses_of(networks_of(["127.0.0.0/29", "127.0.0.6/32", "::1"]))] == [
        "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "::1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words", [["10.0.0.0/8"], ["10.0.0.0/21", "10.1.0.0/20"], ["fd00::/64"], ["lab"], ["10.0.0/24"]]
)
def test_what_is_no_network_or_too_large(words):
    with pytest.raises(NetworkError, match=r"10\.0\.0\.0/24|at most"):
        networks_of(words)


async def test_so_many_at_once_and_in_order():
    addresses = addresses_of([ip_network("10.0.0.0/26")])
    under_way = most = 0
    told = []

    async def ask(address):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return address

    found = await ask_each(addresses, ask, at_once=5, per_s=100_000, progress=lambda *step: told.append(step))
    assert found == addresses
    assert most == 5
    assert told == [(number, 62) for number in range(1, 63)]


async def test_not_faster_than_told():
    loop = asyncio.get_running_loop()
    begun = []

    async def ask(_address):
        begun.append(loop.time())

    await ask_each([ip_address("10.0.0.1")] * 11, ask, per_s=100)
    assert begun[-1] - begun[0] >= 0.099


async def test_a_fault_of_ours_ends_it_and_leaves_nothing_behind():
    async def ask(address):
        if str(address) == "10.0.0.3":
            raise RuntimeError("a defect")
        await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(60):
            await ask_each(addresses_of([ip_network("10.0.0.0/29")]), ask)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("discover")] == []
