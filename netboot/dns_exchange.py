"""One signed question to a DNS server and what its answer means: UDP first, then TCP.

dnspython writes, signs and checks the messages; the sockets are ours, because its own drop an unsigned refusal, which
is what a server sends that does not have the zone.
"""

import asyncio
import struct

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.tsig
import dns.update

from netboot.dns_records import Answer, Trouble, Verdict, judged

UDP_TIMEOUT_S = 3.0
TCP_TIMEOUT_S = 5.0
"""Servers answer an update when it is stored, which takes milliseconds; then TCP is tried, for firewalls."""
HEADER_OCTETS = 12  # RFC 1035, section 4.1.1
MAX_UDP_OCTETS = 512  # RFC 1035, section 4.2.1; RFC 2136, section 6: what is longer goes by TCP


class _Datagrams(asyncio.DatagramProtocol):
    """The first datagram that answers the question with `number`."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _address: object) -> None:
        if answers(data, self._number) and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def answers(data: bytes, number: int) -> bool:
    """Whether `data` is an answer to the message with the id `number`."""
    return len(data) >= HEADER_OCTETS and data[:2] == struct.pack("!H", number) and bool(data[2] & 0x80)


async def exchange(message: dns.update.UpdateMessage, host: str, port: int) -> Answer:
    """Send `message`, signed with the key it was given, to `host` (an address). Never raises for what the network or
    the server does."""
    try:
        question = message.to_wire()
        data = None
        if len(question) <= MAX_UDP_OCTETS:
            data = await _by_udp(question, message.id, host, port)
        if data is None or data[2] & 0x02:  # truncated
            data = await _by_tcp(question, message.id, host, port)
        return judged_answer(data, message)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        return judged_error(error)


async def _by_udp(question: bytes, number: int, host: str, port: int) -> bytes | None:
    """The answer, None where there is none in time."""
    loop = asyncio.get_running_loop()
    transport, datagrams = await loop.create_datagram_endpoint(lambda: _Datagrams(number), remote_addr=(host, port))
    try:
        transport.sendto(question)
        async with asyncio.timeout(UDP_TIMEOUT_S):
            return await datagrams.answer
    except TimeoutError:
        return None
    finally:
        transport.close()


async def _by_tcp(question: bytes, number: int, host: str, port: int) -> bytes:
    """The answer.

    Raises:
        TimeoutError, OSError, EOFError: there is none.
    """
    async with asyncio.timeout(TCP_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(struct.pack("!H", len(question)) + question)
            await writer.drain()
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            data = await reader.readexactly(size)
        finally:
            writer.close()
    if not answers(data, number):
        raise ConnectionError("the answer belongs to another question")
    return data


def judged_answer(data: bytes, message: dns.update.UpdateMessage) -> Answer:
    """What an answer means. One without our key's signature is believed where it refuses, never where it agrees: a
    forged refusal only delays.

    Raises:
        dns.exception.DNSException: it cannot be read, or its signature is wrong.
    """
    try:
        response = dns.message.from_wire(data, keyring=message.keyring, request_mac=message.mac)
        signed, rcode = response.had_tsig, response.rcode()
    except dns.exception.FormError:
        signed, rcode = False, dns.rcode.Rcode(data[3] & 0x0F)
    answer = judged(rcode)
    if not signed and answer.verdict is not Verdict.FAILED:
        return Answer(Verdict.FAILED, Trouble.UNSIGNED)
    return answer


def judged_error(error: Exception) -> Answer:
    """What a failed exchange means. TSIG's own errors: RFC 8945, sections 5.2 and 5.3."""
    if isinstance(error, dns.tsig.PeerBadTime | dns.tsig.BadTime):
        return Answer(Verdict.FAILED, Trouble.CLOCK)
    if isinstance(error, dns.tsig.PeerBadKey | dns.message.UnknownTSIGKey):
        return Answer(Verdict.FAILED, Trouble.KEY)
    if isinstance(error, dns.tsig.PeerError | dns.tsig.BadSignature | dns.tsig.BadKey | dns.tsig.BadAlgorithm):
        return Answer(Verdict.FAILED, Trouble.SIGNATURE)
    if isinstance(error, TimeoutError):
        return Answer(Verdict.FAILED, Trouble.UNREACHABLE, "no answer in time")
    if isinstance(error, OSError | EOFError):
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Answer(Verdict.FAILED, Trouble.UNREACHABLE, text)
    return Answer(Verdict.FAILED, Trouble.SERVER, type(error).__name__)
