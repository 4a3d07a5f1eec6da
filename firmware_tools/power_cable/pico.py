"""The real board: everything that touches the RP2040 or RP2350. MicroPython alone has `machine`."""

import json
import select
import sys
import time

import machine  # type: ignore[import-not-found]  # MicroPython's
import micropython  # type: ignore[import-not-found]

from .edge import Edge
from .keeping import first_bits, kept_word
from .meters import BUS_REGISTER, SHUNT_REGISTER, adc_watts, ina219_watts
from .settings import Outlet, Settings, checked, default

SETTINGS_FILE, STATE_FILE = "power_cable.json", "power_cable.state"
WATCHDOG_RP2040, WATCHDOG_RP2350 = 0x40058000, 0x400D8000
SCRATCH0 = 0x0C
"""RP2040 data sheet 4.7.6, RP2350 data sheet 12.9.7. SCRATCH4 to 7 are the boot ROM's; we take 0 and 1. They keep what
they hold over every reset but that of power and of the RUN pin."""
REPL_WORD = 0x5245504C
ANSWER_OUT_MS = 50
"""USB takes the answer of a restart in this time."""
READ_BYTES = 64
"""Between two looks at watchdog and LEDs; a flood must not keep us from either."""
WRITE_PATIENCE_MS = 200
"""A host that does not read must not hold us; what it does not take is lost, as on any serial line."""


class Pico(Edge):
    """The board. Sets its outlets to the state before the reset before it does anything else."""

    def __init__(self) -> None:
        is_rp2350 = "RP2350" in getattr(sys.implementation, "_machine", "")
        self._scratch = (WATCHDOG_RP2350 if is_rp2350 else WATCHDOG_RP2040) + SCRATCH0
        self.settings = read_settings()
        self.stored = _stored_bits()
        wishes = [outlet.at_power_on for outlet in self.settings.outlets]
        self.bits = first_bits(machine.mem32[self._scratch] & 0xFFFFFFFF, self.stored, wishes)
        self.keep(kept_word(self.bits))
        self._outputs = [
            _output(outlet.pin, bool(self.bits >> number & 1) == outlet.active_high)
            for number, outlet in enumerate(self.settings.outlets)
        ]
        self._senses = [_sense(outlet) for outlet in self.settings.outlets]
        self._leds = [[_output(pin, level=False) for pin in outlet.leds] for outlet in self.settings.outlets]
        wires = self.settings.i2c
        self._i2c = None
        if wires is not None:
            try:
                self._i2c = machine.I2C(wires["id"], sda=machine.Pin(wires["sda"]), scl=machine.Pin(wires["scl"]))
            except ValueError:  # pins that this bus has not: the meters are silent, and the outlets work
                pass
        self.unique_id = machine.unique_id().hex()
        self.cause = "watchdog" if machine.reset_cause() == machine.WDT_RESET else "power"
        self._restart_at: int | None = None
        self._uptime_ms = 0
        self._ticks = time.ticks_ms()  # type: ignore[attr-defined]
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        self._room = select.poll()
        self._room.register(sys.stdout, select.POLLOUT)

    # --- outlets -------------------------------------------------------------------------------------------------

    def switch(self, number: int, on: bool) -> None:
        self._outputs[number].value(on == self.settings.outlets[number].active_high)

    def outlet_on(self, number: int) -> bool:
        outlet, sense = self.settings.outlets[number], self._senses[number]
        if sense is not None:
            return bool(sense.value()) == outlet.sense_high
        return bool(self._outputs[number].value()) == outlet.active_high

    def set_led(self, number: int, place: int, on: bool) -> None:
        self._leds[number][place].value(on)

    def watts(self, number: int) -> float | None:
        meter = self.settings.outlets[number].meter
        if meter is None:
            return None
        if "adc" in meter:
            raw = machine.ADC(machine.Pin(int(meter["adc"]))).read_u16()
            return adc_watts(raw, meter["zero_mv"], meter["mv_per_a"], meter["volts"])
        if self._i2c is None:
            raise OSError("there is no such I2C bus")
        address = int(meter["ina219"])
        shunt = self._i2c.readfrom_mem(address, SHUNT_REGISTER, 2)
        bus = self._i2c.readfrom_mem(address, BUS_REGISTER, 2)
        return ina219_watts(shunt, bus, meter["milliohm"])

    # --- memory --------------------------------------------------------------------------------------------------

    def keep(self, word: int) -> None:
        machine.mem32[self._scratch] = word

    def store(self, bits: int) -> None:
        try:
            with open(STATE_FILE, "w") as file:
                file.write(str(bits))
        except OSError:  # full or worn: the outlets are more important
            pass

    # --- life ----------------------------------------------------------------------------------------------------

    def restart(self, repl: bool) -> None:
        if repl:
            machine.mem32[self._scratch + 4] = REPL_WORD
        self._restart_at = self.now_ms() + ANSWER_OUT_MS

    def wants_repl(self) -> bool:
        """Whether the last restart was for a REPL; asked once."""
        wanted = machine.mem32[self._scratch + 4] & 0xFFFFFFFF == REPL_WORD
        machine.mem32[self._scratch + 4] = 0
        return bool(wanted)

    def now_ms(self) -> int:
        """Milliseconds since the start, which do not wrap as ticks do. Call it at least every few days."""
        ticks = time.ticks_ms()  # type: ignore[attr-defined]
        self._uptime_ms += time.ticks_diff(ticks, self._ticks)  # type: ignore[attr-defined]
        self._ticks = ticks
        return self._uptime_ms

    def start_watchdog(self) -> machine.WDT | None:
        """The watchdog, or None where the settings want none. It cannot be stopped again."""
        return machine.WDT(timeout=self.settings.watchdog_ms) if self.settings.watchdog_ms else None

    def restart_if_due(self) -> None:
        if self._restart_at is not None and self.now_ms() >= self._restart_at:
            machine.reset()

    # --- the tty -------------------------------------------------------------------------------------------------

    def take_over_tty(self) -> None:
        """A 03 on the line is noise, no Ctrl-C."""
        micropython.kbd_intr(-1)

    def read(self, wait_ms: int) -> bytes:
        """What is there, within `wait_ms`; b"" where nothing is."""
        data = b""
        while len(data) < READ_BYTES and self._poll.poll(0 if data else wait_ms):
            byte = sys.stdin.buffer.read(1)
            if not byte:
                break
            data += byte
        return data

    def write(self, data: bytes) -> None:
        """Say `data`, or as much of it as the host takes."""
        while data and self._room.poll(WRITE_PATIENCE_MS):
            count = sys.stdout.buffer.write(data[:READ_BYTES])
            if not count:
                return
            data = data[count:]


def read_settings() -> Settings:
    """The settings on the board; the defaults where there is no file."""
    try:
        with open(SETTINGS_FILE) as file:
            return checked(json.load(file))
    except OSError:
        return checked(default())
    except ValueError:
        return checked("no JSON")


def _stored_bits() -> int | None:
    try:
        with open(STATE_FILE) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _output(pin: int, level: bool) -> machine.Pin:
    """An output whose level is set before its direction (so does machine_pin.c with `value=`): no glitch."""
    return machine.Pin(pin, machine.Pin.OUT, value=1 if level else 0)


def _sense(outlet: Outlet) -> machine.Pin | None:
    if outlet.sense is None:
        return None
    # Towards off, so that a wire that came off reads as off and not as it likes.
    pull = machine.Pin.PULL_DOWN if outlet.sense_high else machine.Pin.PULL_UP
    return machine.Pin(outlet.sense, machine.Pin.IN, pull)
