"""The MQTT server found by DNS: SRV records of `_secure-mqtt._tcp` and `_mqtt._tcp` (RFC 2782, names from IANA).

Blocks: daemons call it in a thread, commands as they are. dnspython is imported when it is first needed.

What DNS says is not signed, so it must not be able to lead anybody away from TLS or to another's server: plain MQTT is
taken only after the answer that there is no secure one (an error is no such answer), never with `mqtts+srv`; and with
TLS a target must lie in the domain itself, because its certificate is checked for the target's name (RFC 9525,
section 6.1, for names that come from DNS).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SECURE_SERVICE = "_secure-mqtt._tcp"
PLAIN_SERVICE = "_mqtt._tcp"
LOOKUP_TIMEOUT_S = 5.0
"""For all servers of the resolver together; a cached answer takes a millisecond."""
MAX_ENDPOINTS = 16
"""Of more targets the first in order are tried: a farm has one to three MQTT servers."""


class DiscoveryError(OSError):
    """No MQTT server was found in DNS; try again later, as with a server that cannot be reached."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an MQTT server listens."""

    host: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One SRV record; `target` without its last dot."""

    priority: int
    weight: int
    port: int
    target: str


def in_order(records: Sequence[SrvRecord], draw: Callable[[int], int]) -> list[SrvRecord]:
    """The order in which to try `records`: by priority, and by weighted chance within one (RFC 2782, "Weight").

    `draw(n)` gives a random integer from 0 to n, both included.
    """
    ordered: list[SrvRecord] = []
    for priority in sorted({record.priority for record in records}):
        # Those of weight 0 come first, which leaves them a small chance.
        group = sorted((record for record in records if record.priority == priority), key=lambda r: r.weight > 0)
        while group:
            drawn, running = draw(sum(record.weight for record in group)), 0
            for record in group:
                running += record.weight
                if running >= drawn:
                    break
            group.remove(record)
            ordered.append(record)
    return ordered


class SrvLookup:
    """Looks MQTT servers up, by the system's resolver, or by `nameservers` (addresses) at `port`."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        port: int = 53,
        timeout_s: float = LOOKUP_TIMEOUT_S,
        draw: Callable[[int], int] = lambda n: random.randint(0, n),
    ) -> None:
        self._nameservers = list(nameservers)
        self._port = port
        self._timeout_s = timeout_s
        self._draw = draw

    def endpoints(self, domain: str, *, tls_only: bool) -> list[Endpoint]:
        """The MQTT servers of `domain` in the order in which to try them; at least one. Blocks.

        Raises:
            DiscoveryError: there is none, or DNS gives no answer.
        """
        secure = self._records(f"{SECURE_SERVICE}.{domain}")
        inside = [record for record in secure if _lies_in(record.target, domain)]
        if secure and not inside:
            raise DiscoveryError(
                f"{SECURE_SERVICE}.{domain} leads out of {domain}, to {secure[0].target}: for TLS the server must have "
                f"a name in {domain}, or be named by mqtts://HOST"
            )
        if inside:
            return self._chosen(inside, tls=True)
        if tls_only:
            raise DiscoveryError(f"DNS has no {SECURE_SERVICE}.{domain}: put the SRV record there, or use mqtts://HOST")
        plain = self._records(f"{PLAIN_SERVICE}.{domain}")
        if not plain:
            raise DiscoveryError(
                f"DNS has neither {SECURE_SERVICE}.{domain} nor {PLAIN_SERVICE}.{domain}: put an SRV record there, or "
                "name the server by mqtt://HOST"
            )
        return self._chosen(plain, tls=False)

    def _chosen(self, records: Sequence[SrvRecord], *, tls: bool) -> list[Endpoint]:
        ordered = in_order(records, self._draw)[:MAX_ENDPOINTS]
        return [Endpoint(record.target, record.port, tls) for record in ordered]

    def _records(self, name: str) -> list[SrvRecord]:
        """The SRV records at `name`; none where DNS says that there are none."""
        import dns.exception  # noqa: PLC0415  # 50 ms, and most farms name their server
        import dns.resolver  # noqa: PLC0415

        try:
            resolver = dns.resolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                resolver.nameservers = list(self._nameservers)
                resolver.port = self._port
            answer = resolver.resolve(f"{name}.", "SRV", lifetime=self._timeout_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except dns.exception.Timeout:
            raise DiscoveryError(f"{name}: the DNS server does not answer within {self._timeout_s:g} s") from None
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise DiscoveryError(f"{name}: DNS gives no answer: {error}") from error
        records = [
            SrvRecord(found.priority, found.weight, found.port, found.target.to_text(omit_final_dot=True).lower())
            for found in answer
        ]
        # "." as target: the service is decidedly not available at this domain (RFC 2782, "Target").
        return [record for record in records if record.target not in {"", "."} and record.port]


def _lies_in(target: str, domain: str) -> bool:
    return f".{target.lower()}".endswith(f".{domain.lower()}")
