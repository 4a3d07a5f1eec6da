"""Runs the power cable's firmware as on its board, under MicroPython's unix port or CPython, with `machine` replaced.

    micropython power_cable_board.py WORLD FOLDER     FOLDER holds the package power_cable

`virtual_lab.power_cable` starts it; stdin and stdout are the tty. WORLD is a folder. Its `world.json` says what the
outside does, and is read whenever the firmware looks; the current folder plays the flash. `registers.json` has the
scratch registers, which outlive a reset. `log` has a line for what happened at the pins:

    mode PIN out LEVEL     a pin became an output, with this level from its first moment (? where it had none)
    mode PIN in PULL       a pin became an input
    out PIN LEVEL          a level was written
    relay PIN on|off       what hangs off the pin changed
    watchdog MS, fed       it was started; it was fed for the first time
    reset, hangs           the board restarts; the firmware stands still

Keeps to what both Pythons have, and imports nothing of ours but the firmware.
"""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204, E402, FBT001, PTH123, SIM115

import json
import sys
import time

WORLD, FOLDER = sys.argv[1], sys.argv[2]
RESET_CODE = 3
"""How this process ends when its board restarts."""
WATCHDOG_BLOCK = (0x40058000, 0x40058030)


def log(text: str) -> None:
    with open(WORLD + "/log", "a") as file:
        file.write(text + "\n")


def read(name: str) -> dict:
    try:
        with open(WORLD + "/" + name) as file:
            found = json.load(file)
    except (OSError, ValueError):  # not there yet
        return {}
    return found


def relays_before() -> dict:
    """What a reset left as it was."""
    found = {}
    try:
        with open(WORLD + "/log") as file:
            for line in file:
                words = line.split()
                if words[0] == "relay":
                    found[int(words[1])] = words[2] == "on"
    except OSError:  # the first start
        pass
    return found


class World:
    """What hangs off the pins, by `world.json`.

    `low`: pins whose relay is on at a low level. `stuck`: pins whose relay moves no more. `sense`: pin -> the relay's
    pin that it feels. `hand`: pin -> [on, number]: a hand moved the relay, once for each number. `adc`: pin -> what it
    reads. `i2c`: address -> register -> bytes. `hang`: the firmware stands still. `leds`: pins without a relay.
    """

    def __init__(self) -> None:
        self.relays: dict = relays_before()
        self.levels: dict = {}
        self.hands: dict = {}

    def now(self) -> dict:
        found = read("world.json")
        if found.get("hang"):
            log("hangs")
        while found.get("hang"):
            time.sleep(0.02)
            found = read("world.json")
        for pin, hand in found.get("hand", {}).items():
            if self.hands.get(pin) != hand[1]:
                self.hands[pin] = hand[1]
                self.become(int(pin), hand[0])
        return found

    def drive(self, pin: int, level: int) -> None:
        now = self.now()
        self.levels[pin] = level
        if pin not in now.get("leds", ()) and pin not in now.get("stuck", ()):
            self.become(pin, bool(level) != (pin in now.get("low", ())))

    def become(self, pin: int, on: bool) -> None:
        if self.relays.get(pin, False) != on:
            log("relay {} {}".format(pin, "on" if on else "off"))
        self.relays[pin] = on

    def level(self, pin: int) -> int:
        felt = self.now().get("sense", {}).get(str(pin))
        return self.levels.get(pin, 0) if felt is None else int(self.relays.get(felt, False))


world = World()


class Pin:
    IN, OUT, PULL_UP, PULL_DOWN = 0, 1, 1, 2

    def __init__(self, number, mode=-1, pull=None, *, value=None) -> None:
        self.number = number
        if mode == Pin.OUT:
            log("mode {} out {}".format(number, "?" if value is None else value))
            if value is not None:
                world.drive(number, value)
        elif mode == Pin.IN:
            log(f"mode {number} in {pull}")

    def value(self, level=None):
        if level is None:
            return world.level(self.number)
        if int(level) != world.levels.get(self.number):
            log(f"out {self.number} {int(level)}")
        world.drive(self.number, int(level))
        return None


class Memory:
    """The scratch registers alone."""

    def __getitem__(self, address):
        return read("registers.json").get(self.key(address), 0)

    def __setitem__(self, address, word) -> None:
        registers = read("registers.json")
        registers[self.key(address)] = word
        with open(WORLD + "/registers.json", "w") as file:
            json.dump(registers, file)

    def key(self, address):
        if not WATCHDOG_BLOCK[0] + 0x0C <= address < WATCHDOG_BLOCK[1] or address % 4:
            raise ValueError(f"the firmware reaches for address {address:x}")
        return str(address)


class I2C:
    def __init__(self, number, *, sda, scl) -> None:
        if (sda.number - 2 * number) % 4 or scl.number != sda.number + 1:
            raise ValueError("bad SDA or SCL pin")
        log(f"i2c {number} {sda.number} {scl.number}")

    def readfrom_mem(self, address, register, count):
        device = world.now().get("i2c", {}).get(str(address))
        if device is None:
            raise OSError(5)
        return bytes(device[str(register)])[:count]


class ADC:
    def __init__(self, pin) -> None:
        self.pin = pin

    def read_u16(self):
        return world.now()["adc"][str(self.pin.number)]


class WDT:
    def __init__(self, *, timeout) -> None:
        log(f"watchdog {timeout}")
        self.fed = False

    def feed(self) -> None:
        world.now()
        if not self.fed:
            self.fed = True
            log("fed")


class Machine:
    """The module `machine`."""

    WDT_RESET, PWRON_RESET = 3, 1
    Pin, I2C, ADC, WDT = Pin, I2C, ADC, WDT
    mem32 = Memory()

    def reset(self) -> None:
        log("reset")
        sys.exit(RESET_CODE)

    def reset_cause(self):
        return Machine.WDT_RESET if read("world.json").get("watchdog") else Machine.PWRON_RESET

    def unique_id(self):
        return bytes(read("world.json")["unique_id"])


class Tty:
    """sys.stdin or sys.stdout as MicroPython has them: a descriptor to poll, and a `buffer` that buffers nothing."""

    def __init__(self, buffer) -> None:
        self.buffer = buffer

    def fileno(self):
        return self.buffer.fileno()

    def flush(self) -> None:
        """There is nothing to flush."""


class Micropython:
    """The module `micropython`."""

    def kbd_intr(self, character) -> None:
        log(f"kbd_intr {character}")


def become_micropython() -> None:
    """Give CPython what the firmware takes for granted."""
    sys.stdin = Tty(open(0, "rb", buffering=0, closefd=False))
    sys.stdout = Tty(open(1, "wb", buffering=0, closefd=False))
    time.ticks_ms = lambda: time.monotonic_ns() // 1000000
    time.ticks_diff = lambda one, other: one - other
    sys.print_exception = lambda error: log(f"error {error!r}")


sys.modules["machine"] = Machine()
sys.modules["micropython"] = Micropython()
if sys.implementation.name == "cpython":
    become_micropython()
sys.path.insert(0, FOLDER)
import power_cable.main  # noqa: F401  # as the board does when it has power
