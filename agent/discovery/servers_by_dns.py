"""MQTT servers that DNS names for domains, by SRV records: what `mqtt+srv://DOMAIN` would find."""

from collections.abc import Iterable, Sequence

from agent.discovery.findings import MqttServer, Problem
from daemon.mqtt_discovery import DiscoveryError, SrvLookup


def own_domains() -> list[str]:
    """The domains that this host looks names up in: resolv.conf's. Blocks for a file."""
    import dns.exception  # noqa: PLC0415  # 50 ms
    import dns.resolver  # noqa: PLC0415

    try:
        resolver = dns.resolver.Resolver()
    except (dns.exception.DNSException, OSError):
        return []
    names = [resolver.domain, *resolver.search]
    found = (name.to_text(omit_final_dot=True).lower() for name in names)
    return [name for name in dict.fromkeys(found) if name not in {"", ".", "local"}]  # `local` is mDNS'


def find(domains: Iterable[str], lookup: SrvLookup) -> tuple[list[MqttServer], list[Problem]]:
    """The servers of `domains`. A domain without one is told with what it lacks. Blocks for DNS."""
    servers: list[MqttServer] = []
    problems: list[Problem] = []
    for domain in domains:
        try:
            found: Sequence[object] = lookup.endpoints(domain, tls_only=False)
        except DiscoveryError as error:
            problems.append(Problem(f"domain {domain}", str(error)))
            continue
        servers.append(MqttServer(f"mqtt+srv://{domain}", f"DNS SRV records, {len(found)} of them"))
    return servers, problems
