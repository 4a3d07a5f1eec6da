"""A board in its fastboot mode on UDP, as U-Boot serves it: the protocol of AOSP's system/core/fastboot/README.md.

    python -m virtual_lab.fastboot_device --port 5554 --flash /tmp/flash --product virt-imx

prints one line with its port, and serves until it is killed. Each partition is a file in `--flash`, written block by
block when the host says `flash`. `--cut-after N`: its power is gone after N octets were received or written;
`--drop N`: every Nth datagram is lost on its way.
"""

import argparse
import json
import re
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

HEADER = struct.Struct(">BBH")
"""Packet id, flags, sequence number."""
CONTINUES = 1
VERSION = 1
PACKET_BYTES = 1400
"""The most that this device takes in one datagram, header included; the protocol wants 512 at least."""
MAX_DOWNLOAD_BYTES = 32 << 20
BLOCK_BYTES = 4096
_SIZE = re.compile(r"[0-9A-Fa-f]{1,8}")
RESPONSE_BYTES = 64
"""README, "Transport and framing": a response is at most so long."""


class PacketId(IntEnum):
    ERROR = 0
    QUERY = 1
    INIT = 2
    FASTBOOT = 3


class PowerCutError(Exception):
    """The device is without power from here on."""


@dataclass(slots=True)
class Partitions:
    """The flash. `cut_after`: octets that can still be written before the power goes; None: it stays."""

    folder: Path
    sizes: dict[str, int]
    cut_after: int | None = None
    log: list[str] = field(default_factory=list)

    def write(self, name: str, data: bytes) -> str:
        """Write an image; returns the answer."""
        size = self.sizes.get(name)
        if size is None:
            return f"FAILpartition '{name}' is not there"
        if len(data) > size:
            return f"FAILpartition '{name}' has {size} octets, the image {len(data)}"
        with (self.folder / name).open("r+b" if (self.folder / name).exists() else "w+b") as chip:
            for at in range(0, len(data), BLOCK_BYTES):
                block = data[at : at + BLOCK_BYTES]
                if self.cut_after is not None:
                    self.cut_after -= len(block)
                    if self.cut_after < 0:
                        raise PowerCutError
                chip.write(block)
        self.log.append(f"flash:{name}")
        return "OKAY"


class Fastboot:
    """What the commands mean; knows nothing of datagrams."""

    def __init__(self, partitions: Partitions, product: str) -> None:
        self._partitions = partitions
        self._variables = {"product": product, "version": "0.4", "max-download-size": hex(MAX_DOWNLOAD_BYTES)}
        self._wanted = 0
        self._data = bytearray()
        self.rebooted = False

    def take(self, data: bytes) -> bytes:
        """A whole command, or a piece of what is being downloaded. Returns the answer, empty while more has to come."""
        if self._wanted:
            self._data += data
            if len(self._data) < self._wanted:
                return b""
            answer = "OKAY" if len(self._data) == self._wanted else "FAILmore data than was announced"
            self._wanted = 0
            return answer.encode()
        return self._command(data.decode("ascii", errors="replace")).encode()[:RESPONSE_BYTES]

    def _command(self, command: str) -> str:
        verb, _, rest = command.partition(":")
        if verb == "getvar":
            return self._variable(rest)
        if verb == "download":
            size = int(rest, 16) if _SIZE.fullmatch(rest) else 0
            if not 0 < size <= MAX_DOWNLOAD_BYTES:
                return "FAILdata too large"
            self._wanted, self._data = size, bytearray()
            return f"DATA{size:08x}"
        if verb == "flash":
            return self._partitions.write(rest, bytes(self._data)) if self._data else "FAILno image downloaded"
        if verb == "erase" and rest in self._partitions.sizes:
            (self._partitions.folder / rest).unlink(missing_ok=True)
            return "OKAY"
        self.rebooted = self.rebooted or verb in {"reboot", "continue"}
        return "OKAY" if verb in {"reboot", "continue"} else f"FAILunknown command {verb}"

    def _variable(self, variable: str) -> str:
        if variable in self._variables:
            return f"OKAY{self._variables[variable]}"
        if not variable.startswith(("partition-type", "partition-size", "has-slot", "is-logical")):
            return "FAILVariable not implemented"
        what, _, name = variable.partition(":")
        size = self._partitions.sizes.get(name)
        if what == "partition-size" and size is not None:
            return f"OKAY{size:#x}"
        return "OKAYraw" if what == "partition-type" and size is not None else "OKAYno"


class UdpLink:
    """README, "UDP Protocol v1": every datagram of the host is answered by one with its id and number; a repeated one
    by the same answer; what the device says waits for an empty datagram."""

    def __init__(self, fastboot: Fastboot) -> None:
        self._fastboot = fastboot
        self._next = 0
        self._last = b""
        self._packet_bytes = PACKET_BYTES
        self._command = b""
        self._answer = b""

    def take(self, datagram: bytes) -> bytes | None:
        """The answer to one datagram; None: nothing is to be said."""
        if len(datagram) < HEADER.size:
            return None
        kind, flags, number = HEADER.unpack_from(datagram)
        data = datagram[HEADER.size :]
        if kind == PacketId.QUERY:
            return HEADER.pack(PacketId.QUERY, 0, number) + struct.pack(">H", self._next)
        if number == (self._next - 1) & 0xFFFF and self._last:
            return self._last
        if number != self._next or kind not in {PacketId.INIT, PacketId.FASTBOOT}:
            return None
        body = self._init(data) if kind == PacketId.INIT else self._fastboot_packet(flags, data)
        self._last = HEADER.pack(kind, 0, number) + body
        self._next = (self._next + 1) & 0xFFFF
        return self._last

    def _init(self, data: bytes) -> bytes:
        theirs = struct.unpack_from(">HH", data)[1] if len(data) >= 4 else PACKET_BYTES
        self._packet_bytes = min(PACKET_BYTES, theirs)
        self._command = self._answer = b""
        return struct.pack(">HH", VERSION, PACKET_BYTES)

    def _fastboot_packet(self, flags: int, data: bytes) -> bytes:
        if not data:
            answer, self._answer = self._answer, b""
            return answer
        self._command += data
        if not flags & CONTINUES:
            whole, self._command = self._command, b""
            self._answer = self._fastboot.take(whole)
        return b""


def serve(link: UdpLink, plug: socket.socket, drop: int) -> None:
    """Answer until the power goes."""
    seen = 0
    while True:
        datagram, host = plug.recvfrom(65535)
        seen += 1
        if drop and seen % drop == 0:
            continue
        answer = link.take(datagram)
        if answer is not None:
            plug.sendto(answer, host)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.fastboot_device")
    parser.add_argument("--port", type=int, default=5554)
    parser.add_argument("--flash", type=Path, required=True)
    parser.add_argument("--partition", action="append", default=[], metavar="NAME=BYTES")
    parser.add_argument("--product", default="virt-board")
    parser.add_argument("--cut-after", type=int)
    parser.add_argument("--drop", type=int, default=0)
    given = parser.parse_args(arguments)
    sizes = dict(word.split("=", 1) for word in given.partition) or {"boot": str(MAX_DOWNLOAD_BYTES)}
    given.flash.mkdir(parents=True, exist_ok=True)
    partitions = Partitions(given.flash, {name: int(size) for name, size in sizes.items()}, given.cut_after)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
        plug.bind(("127.0.0.1", given.port))
        sys.stdout.write(json.dumps({"port": plug.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        try:
            serve(UdpLink(Fastboot(partitions, given.product)), plug, given.drop)
        except PowerCutError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
