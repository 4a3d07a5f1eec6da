"""A device in DFU mode as USB's Device Firmware Upgrade 1.1 describes it: requests in, answers out, no USB in here.

Its memory is a file that is written block by block, as a flash chip is: a device that is unplugged in the middle of a
download keeps the beginning of the new image and the rest of the old one, and comes back in DFU mode.
"""

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

# Section 3, table 3.2: bRequest.
DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
FUNCTIONAL_DESCRIPTOR = 0x21
"""Section 4.1.3."""
CAN_DOWNLOAD, CAN_UPLOAD, MANIFESTATION_TOLERANT = 1, 2, 4
DFU_VERSION = 0x0110
OK, ERR_WRITE, ERR_ADDRESS, ERR_NOTDONE, ERR_STALLEDPKT = 0x00, 0x03, 0x08, 0x09, 0x0F
ERASED = b"\xff"


class State(IntEnum):
    """Section 6.1.2, bState; those of a running application are left out."""

    IDLE = 2
    DNLOAD_SYNC = 3
    DNLOAD_BUSY = 4
    DNLOAD_IDLE = 5
    MANIFEST_SYNC = 6
    MANIFEST = 7
    UPLOAD_IDLE = 9
    ERROR = 10


ALLOWED: dict[State, frozenset[int]] = {
    State.IDLE: frozenset({DNLOAD, UPLOAD, ABORT, GETSTATUS, GETSTATE}),
    State.DNLOAD_SYNC: frozenset({GETSTATUS, GETSTATE}),
    State.DNLOAD_BUSY: frozenset({GETSTATUS, GETSTATE}),
    State.DNLOAD_IDLE: frozenset({DNLOAD, ABORT, GETSTATUS, GETSTATE}),
    State.MANIFEST_SYNC: frozenset({GETSTATUS, GETSTATE}),
    State.MANIFEST: frozenset({GETSTATUS, GETSTATE}),
    State.UPLOAD_IDLE: frozenset({UPLOAD, ABORT, GETSTATUS, GETSTATE}),
    State.ERROR: frozenset({CLRSTATUS, GETSTATUS, GETSTATE}),
}
"""Annex A.2: what is obeyed in each state. Everything else stalls the pipe and leads to dfuERROR."""


@dataclass(slots=True)
class Flash:
    """The chip: a file of `size_bytes`, and beside it whether its content was once manifested as a whole image."""

    path: Path
    size_bytes: int
    _mark: Path = field(init=False)

    def __post_init__(self) -> None:
        self._mark = self.path.with_name(self.path.name + ".whole")
        if not self.path.exists():
            self.path.write_bytes(ERASED * self.size_bytes)

    @property
    def whole_bytes(self) -> int | None:
        """Octets of the image in it, None while there is no whole one: such a device stays in DFU mode."""
        try:
            return int(json.loads(self._mark.read_text(encoding="ascii")))
        except (FileNotFoundError, ValueError):
            return None

    def begin(self) -> None:
        """From the first block on the old image is gone."""
        self._mark.unlink(missing_ok=True)

    def write(self, at: int, block: bytes) -> None:
        with self.path.open("r+b") as chip:
            chip.seek(at)
            chip.write(block)

    def read(self, at: int, size: int) -> bytes:
        with self.path.open("rb") as chip:
            chip.seek(at)
            return chip.read(size)

    def manifest(self, size_bytes: int) -> None:
        self._mark.write_text(json.dumps(size_bytes), encoding="ascii")


class DfuDevice:
    """The state machine of annex A.2 for a device that can download, upload, and go on after manifestation.

    Args:
        transfer_bytes: the most that it takes in one request (wTransferSize).
        poll_ms: how long it wants to be left alone after each block (bwPollTimeout).
    """

    def __init__(self, flash: Flash, *, transfer_bytes: int = 1024, poll_ms: int = 5) -> None:
        self.flash = flash
        self.transfer_bytes = transfer_bytes
        self.poll_ms = poll_ms
        self.state = State.IDLE
        self.status = OK
        self.written = 0
        self._read_at = 0

    def functional_descriptor(self) -> bytes:
        """Section 4.1.3, table 4.2: bLength, type, bmAttributes, wDetachTimeOut, wTransferSize, bcdDFUVersion."""
        can = CAN_DOWNLOAD | CAN_UPLOAD | MANIFESTATION_TOLERANT
        return struct.pack("<BBBHHH", 9, FUNCTIONAL_DESCRIPTOR, can, 0, self.transfer_bytes, DFU_VERSION)

    def take(self, request: int, data: bytes) -> bool:
        """A request with data to the device, or without data. False: it stalls."""
        if request not in ALLOWED[self.state] or (request == DNLOAD and len(data) > self.transfer_bytes):
            return self._stall()
        if request == DNLOAD:
            return self._download(data)
        self.state, self.status = State.IDLE, OK  # ABORT, CLRSTATUS
        return True

    def give(self, request: int, length: int) -> bytes | None:
        """A request for data. None: it stalls."""
        if request not in ALLOWED[self.state]:
            self._stall()
            return None
        if request == GETSTATUS:
            return self._get_status()
        if request == GETSTATE:
            return bytes([self.state])
        if self.state is State.IDLE:
            self._read_at = 0
        block = self.flash.read(self._read_at, min(length, self._image_end() - self._read_at))
        self._read_at += len(block)
        # Section 6.2: a short block ends the upload.
        self.state = State.UPLOAD_IDLE if len(block) == length else State.IDLE
        return block

    def _image_end(self) -> int:
        whole = self.flash.whole_bytes
        return self.flash.size_bytes if whole is None else whole

    def _download(self, data: bytes) -> bool:
        if self.state is State.IDLE:
            if not data:
                return self._stall()  # Section 6.1.1: a download must have at least one block
            self.written = 0
            self.flash.begin()
        if not data:
            self.state = State.MANIFEST_SYNC
            return True
        if self.written + len(data) > self.flash.size_bytes:
            self.state, self.status = State.ERROR, ERR_ADDRESS
            return True
        self.flash.write(self.written, data)
        self.written += len(data)
        self.state = State.DNLOAD_SYNC
        return True

    def _get_status(self) -> bytes:
        """Table 6.1: bStatus, bwPollTimeout, bState, iString."""
        wait_ms = 0
        if self.state is State.DNLOAD_SYNC:
            self.state, wait_ms = State.DNLOAD_BUSY, self.poll_ms
        elif self.state is State.DNLOAD_BUSY:
            self.state = State.DNLOAD_IDLE
        elif self.state is State.MANIFEST_SYNC:
            self.flash.manifest(self.written)
            self.state, wait_ms = State.MANIFEST, self.poll_ms
        elif self.state is State.MANIFEST:
            self.state = State.IDLE
        return struct.pack("<B", self.status) + wait_ms.to_bytes(3, "little") + bytes([self.state, 0])

    def _stall(self) -> bool:
        self.state, self.status = State.ERROR, ERR_STALLEDPKT
        return False
