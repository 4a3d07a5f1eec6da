"""Yepkit's switchable USB hubs YKUSH, YKUSH3 and YKUSH XS.

Beside the hub sits an HID device that takes 64-byte reports and answers each: 0n switches port n down, 1n up, 2n asks;
an answer begins with 01, then 0n or 1n for what the port is. Source: Yepkit's own ykushcmd.
"""

import errno
from collections.abc import Mapping, Sequence

import usb.core  # type: ignore[import-untyped]

from agent.power.driver_kind import DriverContext
from agent.power.drivers.hid_board import GarbledError, HidBoardDriver
from agent.power.drivers.hid_device import OpenHid, UsbBackend, Wanted
from agent.power.kinds.ykush import YkushSettings
from wire.phases import Power

VENDOR = 0x04D8
PORTS = {0xF2F7: 3, 0xF11B: 3, 0xF0CD: 1}
"""Product -> downstream ports: YKUSH, YKUSH3, YKUSH XS."""
REPORT_BYTES = 64
DOWN, UP, ASK = 0x00, 0x10, 0x20
HEARD = 0x01


class YkushBoard:
    """Any of the three."""

    reads_back = True

    def serial_of(self, hid: OpenHid) -> str | None:
        """Of the string descriptor."""
        return hid.serial_number

    def outlets(self, hid: OpenHid) -> int:
        return PORTS[hid.device.idProduct]

    def switch(self, hid: OpenHid, outlet: int, *, on: bool) -> None:
        answer = self._say(hid, (UP if on else DOWN) | outlet)
        if answer[:1] != bytes((HEARD,)):
            raise usb.core.USBError(f"answered {answer[:2].hex(' ') or 'nothing'}", errno=errno.EPIPE)

    def states(self, hid: OpenHid, outlets: Sequence[int]) -> Mapping[int, Power]:
        return {outlet: self._state(hid, outlet) for outlet in outlets}

    def _state(self, hid: OpenHid, outlet: int) -> Power:
        answer = self._say(hid, ASK | outlet)
        for state, power in ((UP, Power.ON), (DOWN, Power.OFF)):
            if answer[:2] == bytes((HEARD, state | outlet)):
                return power
        raise GarbledError(f"{answer[:4].hex(' ') or 'nothing'} to the question for port {outlet}")

    @staticmethod
    def _say(hid: OpenHid, command: int) -> bytes:
        return hid.exchange(bytes((command,)).ljust(REPORT_BYTES, b"\0"), REPORT_BYTES)


def make(name: str, settings: YkushSettings, context: DriverContext) -> HidBoardDriver:
    """The driver of one controller; libusb is shared by all of one agent."""
    wanted = Wanted("YKUSH", frozenset((VENDOR, product) for product in PORTS), settings.serial, settings.path)
    return HidBoardDriver(name, YkushBoard(), wanted, context.share(UsbBackend, UsbBackend), settings.reply_timeout_s)
