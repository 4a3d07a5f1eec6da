"""Who announces himself on the local network by multicast DNS (RFC 6762): MQTT servers, and Shelly devices.

A one-shot query (section 5.1): one question for each service goes out from a port of our own, so that answers come
back to us alone (section 6.7) and no port 5353 is needed, which avahi-daemon has. The codec is dnspython's.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype

from agent.discovery.findings import MqttServer

GROUP = ("224.0.0.251", 5353)
"""RFC 6762, section 3."""
SERVICES = {
    "mqtts": "_secure-mqtt._tcp.local.",
    "mqtt": "_mqtt._tcp.local.",
    "shelly": "_shelly._tcp.local.",
}
"""IANA's service names; the last is what Shelly Gen 2 announces (shelly-api-docs, mDNS discovery)."""
LISTEN_S = 1.5
"""Answers are held back up to 0.12 s (section 6), a device in Wi-Fi power saving takes a second."""
MAX_RECORDS = 2000
"""Of more, somebody on the network plays tricks."""
_CACHE_FLUSH = 0x8000  # the highest bit of a record's class (RFC 6762, section 10.2); DNS knows no such class
_HEADER_BYTES = 12


@dataclass(frozen=True, slots=True)
class Announced:
    """One service that somebody announces. `addresses` may be empty: then only its host name is known."""

    service: str
    instance: str
    host: str
    port: int
    addresses: tuple[str, ...] = ()


def question() -> bytes:
    """One message with all our questions."""
    asked = dns.message.QueryMessage(id=0)
    asked.flags = dns.flags.Flag(0)
    for name in SERVICES.values():
        asked.find_rrset(asked.question, dns.name.from_text(name), dns.rdataclass.IN, dns.rdatatype.PTR, create=True)
    return asked.to_wire()


@dataclass
class Answers:
    """What was answered, without I/O: `hear` takes datagrams, `announced` puts the records together."""

    _instances: dict[dns.name.Name, str] = field(default_factory=dict)
    _places: dict[dns.name.Name, tuple[str, int]] = field(default_factory=dict)
    _addresses: dict[str, set[str]] = field(default_factory=dict)
    garbled: int = 0
    """Datagrams that were no DNS."""

    def hear(self, datagram: bytes) -> None:
        """One datagram; never raises."""
        if len(self._instances) + len(self._places) + len(self._addresses) > MAX_RECORDS:
            return
        try:
            message = dns.message.from_wire(without_cache_flush(datagram), ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, IndexError, struct.error):
            self.garbled += 1
            return
        for records in (*message.answer, *message.additional):
            for record in records:
                self._take(records.name, record)

    def announced(self) -> list[Announced]:
        """Services of which somebody said where they are."""
        found = []
        for instance, service in self._instances.items():
            place = self._places.get(instance)
            if place is not None:
                label = instance.labels[0].decode("utf-8", "replace")
                addresses = tuple(sorted(self._addresses.get(place[0], ())))
                found.append(Announced(service, label, *place, addresses))
        return sorted(found, key=lambda one: (one.service, one.instance))

    def _take(self, name: dns.name.Name, record: Any) -> None:
        if record.rdtype == dns.rdatatype.PTR:
            service = next((word for word, asked in SERVICES.items() if name == dns.name.from_text(asked)), None)
            if service is not None:
                self._instances[record.target] = service
        elif record.rdclass != dns.rdataclass.IN:
            return  # of a class that nobody has, so that its data is not read
        elif record.rdtype == dns.rdatatype.SRV and record.port:
            self._places[name] = (_host(record.target), record.port)
        elif record.rdtype in {dns.rdatatype.A, dns.rdatatype.AAAA}:
            self._addresses.setdefault(_host(name), set()).add(record.address)


def servers(announced: Iterable[Announced]) -> list[MqttServer]:
    """The MQTT servers among them. A server with TLS is named by host name, which its certificate is for."""
    found = []
    for one in announced:
        if one.service in {"mqtt", "mqtts"}:
            plain = next((address for address in one.addresses if ":" not in address), one.host)
            host = one.host if one.service == "mqtts" else plain
            found.append(MqttServer(f"{one.service}://{host}:{one.port}", f"mDNS, as {one.instance!r}"))
    return found


def shelly_addresses(announced: Iterable[Announced]) -> list[str]:
    """IPv4 addresses at which Shelly devices say they are."""
    found = {address for one in announced if one.service == "shelly" for address in one.addresses if ":" not in address}
    return sorted(found)


def without_cache_flush(datagram: bytes) -> bytes:
    """`datagram` with the classes of its records as plain DNS knows them.

    Raises:
        ValueError, IndexError, struct.error: it is no DNS message.
    """
    wire = bytearray(datagram)
    questions, *records = struct.unpack_from("!4H", wire, 4)
    at = _HEADER_BYTES
    for _ in range(questions):
        at = _behind_name(wire, at) + 4
    for _ in range(sum(records)):
        at = _behind_name(wire, at)
        kind, klass, _, size = struct.unpack_from("!HHIH", wire, at)
        if kind != dns.rdatatype.OPT:
            struct.pack_into("!H", wire, at + 2, klass & ~_CACHE_FLUSH)
        at += 10 + size
    return bytes(wire)


async def browse(
    *, group: tuple[str, int] = GROUP, listen_s: float = LISTEN_S, interfaces: Sequence[int] | None = None
) -> tuple[Answers, list[str]]:
    """Ask on every interface, and hear answers for `listen_s`. Also tells why it could not be asked anywhere."""
    answers, faults = Answers(), []

    class Ear(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _from: Any) -> None:
            answers.hear(data)

    sockets = []
    for index in interfaces if interfaces is not None else [number for number, _ in socket.if_nameindex()]:
        line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            line.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
            line.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)  # RFC 6762, section 11
            line.sendto(question(), group)
        except OSError as problem:
            faults.append(problem.strerror or str(problem))  # no IPv4 there, or a tunnel; another may do
            line.close()
        else:
            sockets.append(line)
    if not sockets:
        return answers, sorted(set(faults)) or ["there is no network interface"]
    loop = asyncio.get_running_loop()
    transports = [(await loop.create_datagram_endpoint(Ear, sock=line))[0] for line in sockets]
    try:
        await asyncio.sleep(listen_s)
    finally:
        for transport in transports:
            transport.close()
    return answers, []


def _host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _behind_name(wire: bytearray, at: int) -> int:
    """Where a name ends: at its zero, or behind a pointer (RFC 1035, section 4.1.4)."""
    while True:
        length = wire[at]
        if length >= 0xC0:
            return at + 2
        if length == 0:
            return at + 1
        at += 1 + length
