"""Plays a recording of a real device (`.snmprec`, as snmpsim writes them) as a read-only device over SNMP.

A line is `OID|tag|value`; the tag is the BER tag of the type in decimal, with `x` behind it where the value is
hexadecimal and with `:module` where snmpsim's variation modules made the value move. Of those the recorded value is
played: `value=…` or `initial=…` where it is given, else an empty one.

    async with RecordedDevice("apc-8932.snmprec") as device: … device.port

detection and decoding are so tested on the wire against what a real device said.
"""

import ipaddress
import socket
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from virtual_lab.snmp_pdu_device import DEFAULT_ENGINE_ID
from virtual_lab.snmp_pdu_engine import Access, Responder, V3User
from virtual_lab.snmp_pdu_faults import LineFaults
from virtual_lab.snmp_pdu_model import (
    Counter32,
    Counter64,
    Gauge,
    IpAddress,
    Oid,
    Opaque,
    RefusedSetError,
    TimeTicks,
    Value,
    oid,
)

_MODULUS_32, _MODULUS_64 = 1 << 32, 1 << 64
_SIGN_32 = 1 << 31


class RecordingError(ValueError):
    """A line that cannot be read; says file and line number."""


def _integer(text: str) -> int:
    """An INTEGER in its 32 bits: recordings hold some that their device sent without a sign."""
    return (int(text) + _SIGN_32) % _MODULUS_32 - _SIGN_32


def _address(raw: bytes) -> IpAddress:
    """An address from its four octets or its dotted text."""
    return IpAddress(raw if len(raw) == 4 else ipaddress.IPv4Address(raw.decode("ascii")).packed)


_NUMBERS: Mapping[str, Callable[[str], Value]] = {
    "2": _integer,
    "6": lambda text: oid(text.strip(".")),
    "65": lambda text: Counter32(int(text) % _MODULUS_32),
    "66": lambda text: Gauge(int(text) % _MODULUS_32),
    "67": lambda text: TimeTicks(int(text) % _MODULUS_32),
    "70": lambda text: Counter64(int(text) % _MODULUS_64),
}
_OCTETS: Mapping[str, Callable[[bytes], Value]] = {
    "4": bytes,
    "5": lambda _: b"",  # a Null that the device sent; played as an empty string
    "64": _address,
    "68": Opaque,
}


def _steady(text: str) -> str:
    """The value that a variation module starts from."""
    options = dict(part.partition("=")[::2] for part in text.split(","))
    return options.get("value", options.get("initial", ""))


def _value(tag: str, text: str) -> Value:
    kind, _, module = tag.partition(":")
    if module:
        text = _steady(text)
    is_hex = kind.endswith("x")
    kind = kind.removesuffix("x")
    if kind in _NUMBERS:
        if module and not text:
            text = "0"
        return _NUMBERS[kind](str(int(text, 16)) if is_hex else text)
    return _OCTETS[kind](bytes.fromhex(text) if is_hex else text.encode("latin-1"))


def read_recording(path: Path | str) -> dict[Oid, Value]:
    """All instances of a recording, in the order of their OIDs.

    Raises:
        RecordingError: a line is not `OID|tag|value` with a tag of SNMP.
        OSError: the file cannot be read.
    """
    found: dict[Oid, Value] = {}
    # Latin-1 keeps every octet: some devices put bytes of other encodings, or a NEL, into their strings.
    for number, line in enumerate(Path(path).read_bytes().decode("latin-1").split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, tag, text = line.rstrip("\r").split("|", 2)
            found[oid(name.strip("."))] = _value(tag, text)
        except (ValueError, KeyError) as problem:
            raise RecordingError(f"{path}:{number}: not a line of a recording: {problem}") from problem
    return dict(sorted(found.items()))


class RecordedTables:
    """What a recording holds; every SET is refused, and remembered in `sets`."""

    def __init__(self, values: Mapping[Oid, Value]) -> None:
        self._values = dict(sorted(values.items()))
        self._order = list(self._values)
        self.sets: list[tuple[Oid, Value]] = []

    def answer(self, oid: Oid) -> tuple[Oid, Value | None]:
        return oid, self._values.get(oid)

    def next(self, oid: Oid) -> tuple[Oid, Value] | None:
        at = bisect_right(self._order, oid)
        return None if at == len(self._order) else (self._order[at], self._values[self._order[at]])

    def set_all(self, bindings: Sequence[tuple[Oid, Value]]) -> list[tuple[Oid, Value]]:
        """Refuse it.

        Raises:
            RefusedSetError: notWritable, or noCreation where the recording has no such instance.
        """
        self.sets.extend(bindings)
        raise RefusedSetError("notWritable" if bindings and bindings[0][0] in self._values else "noCreation")


@dataclass
class RecordedDevice(LineFaults):
    """A device that answers from a recording while it is entered. Its `port` is known then.

    Attributes:
        community: reads; any other community meets silence.
        port: UDP port, 0 for any free one until it is entered.
        light: as in `PduSettings`.
    """

    path: Path | str
    community: str = "public"
    users: tuple[V3User, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    engine_id: str = DEFAULT_ENGINE_ID
    light: bool = False
    tables: RecordedTables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = RecordedTables(read_recording(self.path))
        self._responder: Responder | None = None

    async def __aenter__(self) -> Self:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((self.host, self.port))
            sock.setblocking(False)
            self.port = sock.getsockname()[1]
            # The community may write as well, so that a SET is answered by the device and not by its access control.
            access = Access(self.community, self.community, self.users)
            self._responder = Responder(self.tables, self, access, light=self.light)
            self._responder.boot(self.engine_id)
            await self._responder.serve(sock)
        except BaseException:
            sock.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._responder is not None:
            await self._responder.close()
