"""Codec for TFTP packets: RFC 1350; options: RFC 2347, 2348 (blksize), 2349 (timeout, tsize), 7440 (windowsize).

The worker process imports this, so it stands on `struct` and named tuples alone: dataclasses would double its memory.
"""

import struct
from typing import NamedTuple

READ, WRITE, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6

ERROR_UNDEFINED = 0
ERROR_NOT_FOUND = 1
ERROR_ACCESS = 2
ERROR_ILLEGAL = 4

DEFAULT_BLOCK_BYTES = 512
MIN_BLOCK_BYTES = 8
MAX_BLOCK_BYTES = 65464
MAX_BLOCK_NUMBER = 65535
MAX_REQUEST_BYTES = 1024  # RFC 2347 says 512; a long path with five options needs no more than this
IP_UDP_TFTP_BYTES = 32  # IPv4, UDP and TFTP headers: what an MTU holds beside the block
IP6_UDP_TFTP_BYTES = 52
MAX_OPTIONS = 16

_HEAD = struct.Struct("!HH")


class PacketError(ValueError):
    """The octets are no TFTP packet of the kind that was expected."""


class Request(NamedTuple):
    """RRQ or WRQ. `mode` and option names are in lower case; options keep the order of the wire, each name once."""

    opcode: int
    path: str
    mode: str
    options: tuple[tuple[str, str], ...] = ()


class Negotiated(NamedTuple):
    """What came of the options. `accepted` is what the OACK says, in the order that was asked; empty: no OACK."""

    block_bytes: int
    window: int
    timeout_s: int | None
    accepted: tuple[tuple[str, str], ...]


def parse_request(data: bytes) -> Request:
    """An RRQ or WRQ. A missing last NUL and an option name without a value are tolerated.

    Raises:
        PacketError: another opcode, no name or no mode, or too long.
    """
    if not 4 <= len(data) <= MAX_REQUEST_BYTES:
        raise PacketError(f"{len(data)} octets are no request")
    opcode = data[0] << 8 | data[1]
    if opcode not in {READ, WRITE}:
        raise PacketError(f"opcode {opcode} is no request")
    fields = data[2:].split(b"\0")
    if fields[-1] == b"":
        fields.pop()
    if len(fields) < 2 or not fields[0]:
        raise PacketError("a request needs a file name and a mode")
    texts = [field.decode("utf-8", "backslashreplace") for field in fields]
    options: dict[str, str] = {}
    for name, value in zip(texts[2::2], texts[3::2], strict=False):
        if len(options) < MAX_OPTIONS:
            options.setdefault(name.lower(), value)
    return Request(opcode, texts[0], texts[1].lower(), tuple(options.items()))


def encode_request(request: Request) -> bytes:
    """A request as one packet.

    Raises:
        PacketError: a NUL stands in a text, or the packet gets too long.
    """
    texts = [request.path, request.mode]
    for name, value in request.options:
        texts += [name, value]
    if any("\0" in text for text in texts):
        raise PacketError("a NUL cannot stand in a TFTP text")
    data = struct.pack("!H", request.opcode) + b"".join(text.encode() + b"\0" for text in texts)
    if len(data) > MAX_REQUEST_BYTES:
        raise PacketError(f"{len(data)} octets are too long for a request")
    return data


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def negotiate(
    request: Request, *, size: int, mtu_bytes: int, max_window: int, head_bytes: int = IP_UDP_TFTP_BYTES
) -> Negotiated:
    """Answer the options of `request` for a file of `size` octets on the wire; `head_bytes` are all of a packet's
    octets that are no part of the block.

    An unknown option or an impossible value is left out, as RFC 2347 says; sizes are clamped so that a block never
    needs fragments (U-Boot loses them).
    """
    block, window, timeout = DEFAULT_BLOCK_BYTES, 1, None
    accepted: list[tuple[str, str]] = []
    for name, text in request.options:
        value = _number(text)
        if value is None:
            continue
        if name == "blksize" and value >= MIN_BLOCK_BYTES:
            block = max(MIN_BLOCK_BYTES, min(value, mtu_bytes - head_bytes, MAX_BLOCK_BYTES))
            accepted.append((name, str(block)))
        elif name == "windowsize" and 1 <= value <= 65535:
            window = min(value, max_window)
            accepted.append((name, str(window)))
        elif name == "timeout" and 1 <= value <= 255:
            timeout = value
            accepted.append((name, text))
        elif name == "tsize":
            accepted.append((name, str(size)))
    return Negotiated(block, window, timeout, tuple(accepted))


def encode_oack(options: tuple[tuple[str, str], ...]) -> bytes:
    """An OACK."""
    return struct.pack("!H", OACK) + b"".join(f"{name}\0{value}\0".encode() for name, value in options)


def encode_error(code: int, message: str) -> bytes:
    """An ERROR; the message is cut to what fits one small packet."""
    return _HEAD.pack(ERROR, code) + message.encode("ascii", "replace")[:400].replace(b"\0", b"?") + b"\0"


def data_head(number: int) -> bytes:
    """The four octets before the block `number` (0..65535)."""
    return _HEAD.pack(DATA, number)


def encode_ack(number: int) -> bytes:
    """An ACK of block `number` (0..65535)."""
    return _HEAD.pack(ACK, number)


def head(data: bytes) -> tuple[int, int] | None:
    """Opcode and the number after it (block or error code); None when there are not four octets."""
    return (data[0] << 8 | data[1], data[2] << 8 | data[3]) if len(data) >= 4 else None


def netascii(data: bytes) -> bytes:
    """Text as it travels in mode netascii (RFC 764): LF becomes CR LF, a bare CR becomes CR NUL."""
    return data.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
