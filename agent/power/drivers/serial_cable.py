"""A power cable: a microcontroller on a serial port that switches one board and shows its state on three LEDs.

Protocol: one character per command, a hexadecimal digit; bit 0 is power, bits 1 to 3 are LEDs (booting, ready, fault).
The cable as first built never answers. Newer firmware, and the virtual cable, answer `?` with the current digit. A
cable that stays silent is taken for an old one: its board's power is `unknown`, and is never claimed.

Beware: an old cable that decodes by arithmetic takes `?` for 15 (0x3f - 0x30) and switches on. For such a cable set
`read_back = false`, and it is never asked.
"""

from collections.abc import Callable
from typing import TypeVar

import serial

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.serial_port import SerialPort
from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.kinds.serial_cable import SerialCableSettings
from wire.phases import Phase, Power

T = TypeVar("T")

OUTLET = "1"
"""The one outlet of a cable."""
POWER_BIT = 0b0001
LED_BOOTING = 0b0010
LED_READY = 0b0100
LED_FAULT = 0b1000
LEDS = LED_BOOTING | LED_READY | LED_FAULT

ASK = b"?"
HEX_DIGITS = b"0123456789abcdefABCDEF"
MAX_NOISE_BYTES = 64
"""Bytes that are no digit (an echo, line ends) passed over while waiting for an answer."""

TIMING = Timing(verify_deadline_s=2.0, poll_interval_s=0.02, settle_s=0.2, min_off_s=2.0, attempts=3, call_timeout_s=5)


def leds_of(phase: Phase) -> int:
    """The LED bits that show `phase`."""
    if phase.coming_up:
        return LED_BOOTING
    return {Phase.READY: LED_READY, Phase.BUSY: LED_READY, Phase.FAULT: LED_FAULT}.get(phase, 0)


class SerialCableDriver:
    """One cable."""

    def __init__(self, name: str, settings: SerialCableSettings) -> None:
        self._name = name
        self._settings = settings
        self._port = SerialPort(name, settings.device, settings.baudrate, opened=self._opened)
        self._known: int | None = None
        """The digit last read back, or last sent to this open port."""
        self._answers: bool | None = None if settings.read_back else False

    @property
    def timing(self) -> Timing:
        return TIMING

    @property
    def reads_back(self) -> bool:
        return self._answers is not False

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call(outlet, lambda port: self._send(port, ((self._known or 0) & LEDS) | (POWER_BIT if on else 0)))

    async def get(self, outlet: str) -> Power:
        digit = await self._call(outlet, self._ask)
        return Power.UNKNOWN if digit is None else Power.ON if digit & POWER_BIT else Power.OFF

    async def read(self, outlet: str) -> float | None:
        """Cables measure nothing."""
        del outlet
        return None

    async def describe(self) -> list[OutletDescription]:
        return [OutletDescription(OUTLET, power=await self.get(OUTLET))]

    async def show(self, outlet: str, phase: Phase) -> None:
        """Does nothing while the power bit is not known: LEDs and power travel in one digit, and a guess would switch
        the board."""
        await self._call(outlet, lambda port: self._show(port, leds_of(phase)))

    async def close(self) -> None:
        await self._port.close()

    async def _call(self, outlet: str, work: Callable[[serial.Serial], T]) -> T:
        if outlet != OUTLET:
            raise ConfigurationError(
                "a power cable has one outlet", controller=self._name, outlet=outlet, do=f"write {self._name}:{OUTLET}"
            )
        return await self._port.run(work, outlet=outlet)

    # --- on the port's thread ------------------------------------------------------------------------------------

    def _opened(self, port: serial.Serial) -> None:
        port.timeout = self._settings.reply_timeout_s
        self._known = None
        self._answers = None if self._settings.read_back else False

    def _send(self, port: serial.Serial, digit: int) -> None:
        port.write(b"%x" % digit)
        self._known = digit

    def _show(self, port: serial.Serial, leds: int) -> None:
        if self._settings.read_back:
            self._ask(port)
        if self._known is not None and self._known & LEDS != leds:
            self._send(port, (self._known & POWER_BIT) | leds)

    def _ask(self, port: serial.Serial) -> int | None:
        if not self._settings.read_back:
            return None
        port.reset_input_buffer()
        port.write(ASK)
        for _ in range(MAX_NOISE_BYTES):
            byte = port.read(1)
            if not byte:
                break
            if byte in HEX_DIGITS:
                self._answers = True
                self._known = int(byte, 16)
                return self._known
        if self._answers:
            raise UnreachableError(
                f"did not answer within {self._settings.reply_timeout_s:g} s, and did so before",
                controller=self._name,
                outlet=OUTLET,
                do=f"replug the cable at {self._settings.device}",
            )
        self._answers = False
        return None


def make(name: str, settings: SerialCableSettings, _context: DriverContext) -> SerialCableDriver:
    """The driver of one controller."""
    return SerialCableDriver(name, settings)
