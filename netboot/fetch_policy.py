"""From where files may be fetched: the agent stands in a network that those who write jobs cannot reach themselves.

Without a list every http(s) host may be named, but none whose address is this host's own loopback, link-local (the
metadata of clouds is there), or no host's at all. What counts is the address that is connected to: names are judged
after they are resolved, for each connection and redirect anew, so a name that changes its address gains nothing. With a
list only what begins with one of its URLs is fetched, redirects included, and from wherever that leads: the list is the
operator's word.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from netboot.fetch_errors import FetchForbiddenError, FetchUrlError

Address = IPv4Address | IPv6Address

_THIS_NETWORK = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3; Linux takes 0.0.0.0 for itself
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_COMPATIBLE = IPv6Network("::/96")  # RFC 4291 section 2.5.5.1, the same
_METADATA = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)  # of Alibaba, Azure, Oracle, AWS and Google; all others are link-local
_NUMERIC = re.compile(r"[0-9.]*|.*:.*")
_UPWARDS = re.compile(r"(?:^|[/\\])\.\.(?:$|[/\\;])")


class ForbiddenAddressError(OSError):
    """A name has no address that may be connected to."""


def objection(address: Address) -> str | None:
    """Why nothing is fetched from this address, None where it may be."""
    inner = _embedded(address)
    if inner is not None:
        return objection(inner)
    if address.is_loopback or address in _THIS_NETWORK:
        return "it is this host itself"
    if address.is_link_local:
        return "it is link-local"
    if address in _METADATA:
        return "it holds a cloud's metadata"
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return "it is no host's address"
    return None


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address reaches by a mapping or a tunnel."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo is not None else None)


@dataclass(frozen=True, slots=True)
class AllowedPlace:
    """All URLs that begin with this one: scheme, host and port are the same, and the path begins with whole parts of
    its own.

    Raises:
        ValueError: it is no such URL.
    """

    url: URL

    def __post_init__(self) -> None:
        url = self.url
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError(f"{url}: an http:// or https:// URL with a host is needed, as https://files.lab/boards/")
        if url.user is not None or url.password is not None or url.query_string or url.fragment:
            raise ValueError(f"{url.with_user(None)}: without user, password, query and fragment")
        if _climbs(url):
            raise ValueError(f"{url}: the path leads upwards")

    def covers(self, url: URL) -> bool:
        """Whether `url` is of this place."""
        own = self.url
        if (url.scheme, url.host, url.port) != (own.scheme, own.host, own.port) or _climbs(url):
            return False
        prefix = own.raw_path.rstrip("/") + "/"
        return url.raw_path == own.raw_path or url.raw_path.startswith(prefix)


def _climbs(url: URL) -> bool:
    """Whether an origin might read the path as leading upwards, also where its slashes are encoded."""
    return _UPWARDS.search(url.path) is not None


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched. `allow` empty: from every host, as above. `without_checksum`: also a file whose SHA-256 the
    asker does not know; it is then whatever the origin sends. `anywhere`: no address is forbidden."""

    allow: tuple[AllowedPlace, ...] = ()
    without_checksum: bool = False
    anywhere: bool = False

    @property
    def judges_addresses(self) -> bool:
        """Whether names have to be resolved by a `GuardedResolver`."""
        return not self.allow and not self.anywhere

    def check(self, url: URL) -> None:
        """Do nothing, if `url` may be asked. Its name is not resolved here.

        Raises:
            FetchForbiddenError: it may not.
        """
        if self.allow and not any(place.covers(url) for place in self.allow):
            raise FetchForbiddenError(f"{_shown(url)}: not in the settings' list, [netboot.fetch] allow")
        if not self.judges_addresses:
            return
        host = (url.host or "").partition("%")[0]
        try:
            reason = objection(ip_address(host))
        except ValueError:
            # A name: the resolver judges what it stands for. But 127.1 and 2130706433 go past it, in old aiohttp too.
            reason = "it is no name and no address" if _NUMERIC.fullmatch(host) else None
        if reason is not None:
            raise FetchForbiddenError(f"{_shown(url)}: {reason}; [netboot.fetch] allow can permit it")

    def check_checksum(self, url: URL, sha256: str | None) -> None:
        """Do nothing, if `url` may be fetched with this checksum or with none.

        Raises:
            FetchUrlError: a checksum is needed.
        """
        if sha256 is None and not self.without_checksum:
            raise FetchUrlError(f"{_shown(url)}: give its SHA-256; nothing is fetched without one")


def _shown(url: URL) -> str:
    return str(url.with_user(None).with_query(None).with_fragment(None))[:200]


ANYWHERE = FetchPolicy(anywhere=True)
"""For commands of those who can reach all that this host reaches."""


class GuardedResolver(AbstractResolver):
    """Resolves names to addresses that may be connected to. aiohttp connects to what this gives, and to nothing else,
    so there is no second look-up that could say something different."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host` that may be connected to.

        Raises:
            ForbiddenAddressError: it has none.
            OSError: it cannot be resolved.
        """
        found = await self._inner.resolve(host, port, family)
        reasons: list[str] = []
        good: list[ResolveResult] = []
        for entry in found:
            reason = objection(ip_address(entry["host"].partition("%")[0]))
            if reason is None:
                good.append(entry)
            else:
                reasons.append(f"{entry['host']}: {reason}")
        if not good:
            raise ForbiddenAddressError("; ".join(reasons) or f"{host} has no address")
        return good

    async def close(self) -> None:
        """Give back what the resolver inside holds."""
        await self._inner.close()
