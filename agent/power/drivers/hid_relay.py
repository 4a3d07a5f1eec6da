"""HID relay boards.

dcttech's `USBRelayN` (16c0:05df, ids that V-USB shares among hobby devices, so the product string decides): feature
reports of eight bytes. FF, relay switches on; FD, relay off. What is read has the serial in bytes 0 to 4 and a bit per
relay in byte 7. Sources: usbrelay, labgrid's usb_hid_relay agent.

LCUS (5131:2007): the frames of its serial sister through interrupt endpoints; what is answered tells no state.
Source: labgrid's usb_hid_relay agent.
"""

import re
from collections.abc import Mapping, Sequence

from agent.power.driver_kind import DriverContext
from agent.power.drivers.hid_board import GarbledError, HidBoardDriver
from agent.power.drivers.hid_device import OpenHid, UsbBackend, Wanted
from agent.power.drivers.serial_relay_protocols import lcus_frame
from agent.power.kinds.hid_relay import HidRelaySettings
from wire.phases import Power

DCTTECH = (0x16C0, 0x05DF)
LCUS = (0x5131, 0x2007)
DCTTECH_ON, DCTTECH_OFF = 0xFF, 0xFD
DCTTECH_REPORT_BYTES = 8
DCTTECH_SERIAL_BYTES = 5
DCTTECH_STATE_BYTE = 7
LCUS_REPORT_BYTES = 64


class DcttechBoard:
    """`USBRelay1` to `USBRelay8`."""

    reads_back = True

    def serial_of(self, hid: OpenHid) -> str | None:
        if _count(hid) is None:
            return None
        try:
            return self._serial(self._report(hid))
        except GarbledError:
            return None

    def outlets(self, hid: OpenHid) -> int:
        return _count(hid) or 0

    def switch(self, hid: OpenHid, outlet: int, *, on: bool) -> None:
        command = bytes((DCTTECH_ON if on else DCTTECH_OFF, outlet))
        hid.set_report(command.ljust(DCTTECH_REPORT_BYTES, b"\0"))

    def states(self, hid: OpenHid, outlets: Sequence[int]) -> Mapping[int, Power]:
        report = self._report(hid)
        if (serial := self._serial(report)) != hid.serial:
            raise GarbledError(f"as board {serial}, and was {hid.serial}")
        bits = report[DCTTECH_STATE_BYTE]
        return {outlet: Power.ON if bits >> (outlet - 1) & 1 else Power.OFF for outlet in outlets}

    @staticmethod
    def _report(hid: OpenHid) -> bytes:
        report = hid.get_report(DCTTECH_REPORT_BYTES)
        if len(report) != DCTTECH_REPORT_BYTES:
            raise GarbledError(f"{report.hex(' ') or 'nothing'}, which is no report of {DCTTECH_REPORT_BYTES} bytes")
        return report

    @staticmethod
    def _serial(report: bytes) -> str:
        return report[:DCTTECH_SERIAL_BYTES].rstrip(b"\0").decode("ascii", errors="backslashreplace")


class LcusHidBoard:
    """One whose states nobody knows how to ask for: power is unknown for ever."""

    reads_back = False

    def __init__(self, outlets: int) -> None:
        self._outlets = outlets

    def serial_of(self, hid: OpenHid) -> str | None:
        """Of its string descriptor, where it has one."""
        return hid.serial_number

    def outlets(self, hid: OpenHid) -> int:
        del hid
        return self._outlets

    def switch(self, hid: OpenHid, outlet: int, *, on: bool) -> None:
        hid.exchange(lcus_frame(outlet, int(on)), LCUS_REPORT_BYTES)

    def states(self, hid: OpenHid, outlets: Sequence[int]) -> Mapping[int, Power]:
        del hid
        return dict.fromkeys(outlets, Power.UNKNOWN)


def _count(hid: OpenHid) -> int | None:
    """Relays by the product string; None when it is no such board."""
    found = re.fullmatch(r"USBRelay([1-8])", hid.product)
    return None if found is None else int(found[1])


def make(name: str, settings: HidRelaySettings, context: DriverContext) -> HidBoardDriver:
    """The driver of one controller; libusb is shared by all of one agent."""
    wanted = Wanted(
        "HID relay board",
        frozenset((DCTTECH if settings.protocol == "dcttech" else LCUS,)),
        settings.serial,
        settings.path,
    )
    board = DcttechBoard() if settings.protocol == "dcttech" else LcusHidBoard(settings.outlets or 1)
    return HidBoardDriver(name, board, wanted, context.share(UsbBackend, UsbBackend), settings.reply_timeout_s)
