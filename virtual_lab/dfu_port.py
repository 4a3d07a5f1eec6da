"""A board in DFU mode on a USB port that Linux's vhci_hcd plays: what it is told are real URBs of a real host.

    python -m virtual_lab.dfu_port --serial DFU01 --state /run/dfu.json --flash /run/chip.bin

prints one line when the board is plugged in, and plays 1209:db42 until it is killed; a killed one has lost its power:
its chip (`virtual_lab.dfu_device.Flash`) holds what was written. `--state` tells, as JSON, {"state": 5, "written":
4096, "whole": null}. `--cut-after N` is a power cut of its own, after N octets were written. Needs root and vhci_hcd.

It is no gadget behind dummy_hcd, because the functionfs of kernels before 6.12 takes no DFU functional descriptor. The
kernel is handed one end of a socket pair and speaks on it as a USB/IP client (Documentation/usb/usbip_protocol.rst).
"""

import argparse
import errno
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtual_lab.dfu_device import DfuDevice, Flash

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
FLASH_BYTES = 256 * 1024
VENDOR, PRODUCT = 0x1209, 0xDB42
STRINGS = ("boardhand", "Virtual board in DFU mode")
FULL_SPEED = 2
"""linux/usb/ch9.h, enum usb_device_speed."""
DEVICE_ID = 1
FREE_PORT = 4
"""usbip's VDEV_ST_NULL, as the status file shows it."""
HEADER = struct.Struct(">IIIIIIIIII8s")
"""Command, seqnum, devid, direction, ep; then flags, length, start_frame, packets, interval, and the setup packet."""
REPLY = struct.Struct(">IIIIIiIIII8x")
"""The same base, then status, length, start_frame, packets, errors."""
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
DIRECTION_IN = 1
# USB 2.0, table 9-4 and 9-5.
GET_STATUS, SET_ADDRESS, GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION, SET_INTERFACE = 0, 5, 6, 8, 9, 11
DEVICE, CONFIGURATION, STRING = 1, 2, 3
CLASS_REQUEST = 0x20


@dataclass(frozen=True, slots=True)
class Setup:
    """USB 2.0, table 9-2."""

    kind: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def parse(cls, data: bytes) -> "Setup":
        return cls(*struct.unpack("<BBHHH", data))


class Board:
    """The device behind the port: its descriptors, and DFU's requests handed to the state machine."""

    def __init__(self, dfu: DfuDevice, serial: str) -> None:
        self._dfu = dfu
        self._strings = (*STRINGS, serial)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """One request on endpoint 0. None: it stalls."""
        if setup.kind & CLASS_REQUEST:
            if setup.kind & 0x80:
                return self._dfu.give(setup.request, setup.length)
            return b"" if self._dfu.take(setup.request, data) else None
        if setup.request == GET_DESCRIPTOR:
            found = self._descriptor(setup.value >> 8, setup.value & 0xFF)
            return None if found is None else found[: setup.length]
        answers = {GET_STATUS: b"\0\0", GET_CONFIGURATION: b"\1"}
        silent = {SET_ADDRESS, SET_CONFIGURATION, SET_INTERFACE}
        return b"" if setup.request in silent else answers.get(setup.request)

    def _descriptor(self, kind: int, number: int) -> bytes | None:
        if kind == DEVICE:
            return struct.pack("<BBHBBBBHHHBBBB", 18, DEVICE, 0x0200, 0, 0, 0, 64, VENDOR, PRODUCT, 0x0100, 1, 2, 3, 1)
        if kind == CONFIGURATION:
            # DFU 1.1, 4.2.3: class 0xFE, subclass 1, protocol 2, no endpoint but 0.
            interface = struct.pack("<BBBBBBBBB", 9, 4, 0, 0, 0, 0xFE, 1, 2, 0) + self._dfu.functional_descriptor()
            return struct.pack("<BBHBBBBB", 9, CONFIGURATION, 9 + len(interface), 1, 1, 0, 0x80, 50) + interface
        if kind == STRING and number <= len(self._strings):
            text = struct.pack("<H", 0x0409) if number == 0 else self._strings[number - 1].encode("utf-16-le")
            return bytes([2 + len(text), STRING]) + text
        return None


def serve(link: socket.socket, board: Board, after_each: "Watch") -> None:
    """Answer the kernel until it lets go of the device."""
    while header := _exactly(link, HEADER.size):
        command, number, _, direction, endpoint, _, length, *_, setup = HEADER.unpack(header)
        if command == CMD_UNLINK:
            # Every request is answered before the next is read, so there is never one to take back.
            link.sendall(REPLY.pack(RET_UNLINK, number, 0, 0, 0, 0, 0, 0, 0, 0))
            continue
        data = b"" if direction == DIRECTION_IN else _exactly(link, length)
        answer = board.control(Setup.parse(setup), data) if endpoint == 0 else None
        status = -errno.EPIPE if answer is None else 0
        body = (answer or b"") if direction == DIRECTION_IN else b""
        done = len(body) if direction == DIRECTION_IN else len(data)
        link.sendall(REPLY.pack(RET_SUBMIT, number, 0, 0, 0, status, done, 0, 0, 0) + body)
        after_each.look()


@dataclass(frozen=True, slots=True)
class Watch:
    """Tells the state, and cuts the power when it is time."""

    dfu: DfuDevice
    state: Path
    cut_after: int | None

    def look(self) -> None:
        said = {"state": self.dfu.state, "written": self.dfu.written, "whole": self.dfu.flash.whole_bytes}
        fresh = self.state.with_suffix(".new")
        fresh.write_text(json.dumps(said), encoding="ascii")
        fresh.replace(self.state)
        if self.cut_after is not None and self.dfu.written >= self.cut_after and self.dfu.flash.whole_bytes is None:
            os.kill(os.getpid(), signal.SIGKILL)


def _exactly(link: socket.socket, size: int) -> bytes:
    """So many octets, or none where the other end is gone."""
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


def plug(serial: str) -> socket.socket:
    """Hand the kernel a device on a free port of its virtual controller.

    Raises:
        OSError: vhci_hcd is not there, or has no port left.
    """
    ours, its = socket.socketpair()
    for line in (VHCI / "status").read_text(encoding="ascii").splitlines()[1:]:
        hub, port, status, *_ = line.split()
        if hub == "hs" and int(status) == FREE_PORT:
            (VHCI / "attach").write_text(f"{int(port)} {its.fileno()} {DEVICE_ID} {FULL_SPEED}", encoding="ascii")
            its.close()
            return ours
    raise OSError(errno.EBUSY, f"no free port for {serial}", str(VHCI))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.dfu_port")
    parser.add_argument("--serial", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--flash", type=Path, required=True)
    parser.add_argument("--flash-bytes", type=int, default=FLASH_BYTES)
    parser.add_argument("--cut-after", type=int)
    given = parser.parse_args(arguments)
    dfu = DfuDevice(Flash(given.flash, given.flash_bytes))
    watch = Watch(dfu, given.state, given.cut_after)
    with plug(given.serial) as link:
        watch.look()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        serve(link, Board(dfu, given.serial), watch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
