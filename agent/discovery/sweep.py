"""Asks every address of some networks the same question: so many at once, so many a second, each with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeVar

T = TypeVar("T")
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

MAX_ADDRESSES = 4096
"""A /20 together. More is not a lab's network but a mistyped one, and would take minutes."""
AT_ONCE = 256
"""Open questions; a silent address keeps one open for two seconds."""
PER_S = 100
"""New addresses begun in a second: what is asked are small devices behind small switches, and each address that
nobody has costs the router an ARP request."""


class NetworkError(ValueError):
    """A network is none, or is too large; the text says what to write."""


def networks_of(words: Iterable[str]) -> list[Network]:
    """The networks that these words name, `10.0.0.0/24` or one address.

    Raises:
        NetworkError: a word is no network, or they have more than `MAX_ADDRESSES` together.
    """
    found: list[Network] = []
    for word in words:
        try:
            found.append(ip_network(word, strict=False))
        except ValueError:
            raise NetworkError(f"{word!r} is no network: write 10.0.0.0/24") from None
    count = sum(network.num_addresses for network in found)
    if count > MAX_ADDRESSES:
        raise NetworkError(f"{count} addresses are too many: name the part that has the PDUs, at most {MAX_ADDRESSES}")
    return found


def addresses_of(networks: Iterable[Network]) -> list[Address]:
    """Every host address once, in order of the networks."""
    return list(dict.fromkeys(address for network in networks for address in network.hosts()))


async def ask_each(
    addresses: Sequence[Address],
    ask: Callable[[Address], Awaitable[T]],
    *,
    at_once: int = AT_ONCE,
    per_s: float = PER_S,
    progress: Callable[[int, int], None] | None = None,
) -> list[T]:
    """What `ask` returns for each address, in their order. `progress` is told (done, of how many)."""
    free = asyncio.Semaphore(at_once)
    done = 0

    async def one(address: Address) -> T:
        nonlocal done
        try:
            return await ask(address)
        finally:
            free.release()
            done += 1
            if progress is not None:
                progress(done, len(addresses))

    loop = asyncio.get_running_loop()
    began_s = loop.time()
    tasks: list[asyncio.Task[T]] = []
    async with asyncio.TaskGroup() as group:
        for number, address in enumerate(addresses):
            await free.acquire()
            await asyncio.sleep(began_s + number / per_s - loop.time())
            tasks.append(group.create_task(one(address), name=f"discover {address}"))
    return [task.result() for task in tasks]
