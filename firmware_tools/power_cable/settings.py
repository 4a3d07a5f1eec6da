"""The cable's settings: a JSON file on the board, checked here, without I/O.

A file that is wrong switches nothing: the cable then says what is wrong with it in answer to every request.
"""

MOST_OUTLETS = 8
"""As many as the kept state has bits for."""
LAST_PIN = 28
ADC_PINS = (26, 27, 28)
LEAST_WATCHDOG_MS, MOST_WATCHDOG_MS = 2000, 8388
"""A host that does not read, and flash, may hold us for some 0.3 s; the RP2040's counter reaches 8388."""
AT_POWER_ON = ("off", "on", "last")
DEFAULT_PINS = ((2, 6), (3, 7), (4, 8), (5, 9))
"""Output and LED of each outlet where there is no file."""


class SettingsError(Exception):
    """The file is wrong; the text names the key."""


class Outlet:
    """One outlet. `leds`: one pin, or three for booting, ready, fault; `meter` as it stands in the file."""

    def __init__(self, table: dict[str, object], where: str) -> None:
        _known(table, where, ("pin", "active", "sense", "sense_active", "led", "at_power_on", "meter"))
        self.pin = _pin(table, "pin", where)
        self.active_high = _one_of(table, "active", ("high", "low"), where) == "high"
        self.sense = _pin(table, "sense", where) if "sense" in table else None
        self.sense_high = _one_of(table, "sense_active", ("high", "low"), where) == "high"
        led = table.get("led", [])
        pins = led if isinstance(led, list) else [led]
        if len(pins) not in (0, 1, 3):
            raise SettingsError(f"{where}.led: one pin, or three for booting, ready and fault")
        self.leds = [_pin({"led": pin}, "led", where) for pin in pins]
        self.at_power_on = _one_of(table, "at_power_on", AT_POWER_ON, where)
        self.meter = _meter(table.get("meter"), where + ".meter")

    def pins(self) -> list[int]:
        """All pins that it takes."""
        found = [self.pin] + self.leds  # noqa: RUF005  # MicroPython unpacks in calls alone
        if self.sense is not None:
            found.append(self.sense)
        if self.meter and "adc" in self.meter:
            found.append(int(self.meter["adc"]))
        return found


class Settings:
    """The whole file. `problem`: what is wrong with it; there are no outlets then."""

    def __init__(self) -> None:
        self.problem = ""
        self.outlets: list[Outlet] = []
        self.i2c: dict[str, int] | None = None
        self.watchdog_ms = 8000
        self.must_be_checked = False
        self.one_character = True


def default() -> dict[str, object]:
    """What holds where there is no file."""
    return {"outlets": [{"pin": pin, "led": led} for pin, led in DEFAULT_PINS]}


def checked(table: object) -> Settings:
    """The settings in a parsed file; of a wrong one only its `problem`."""
    found = Settings()
    try:
        _fill(found, table)
    except SettingsError as error:
        found = Settings()
        found.problem = str(error)
    return found


def _fill(found: Settings, table: object) -> None:
    if not isinstance(table, dict):
        raise SettingsError("the file is no JSON object")
    _known(table, "", ("outlets", "i2c", "watchdog_ms", "checksum", "one_character"))
    outlets = table.get("outlets")
    if not isinstance(outlets, list) or not 1 <= len(outlets) <= MOST_OUTLETS:
        raise SettingsError(f"outlets: a list of 1 to {MOST_OUTLETS}")
    for number, outlet in enumerate(outlets):
        if not isinstance(outlet, dict):
            raise SettingsError(f"outlets[{number}]: is no object")
        found.outlets.append(Outlet(outlet, f"outlets[{number}]"))
    if table.get("watchdog_ms") != 0:
        found.watchdog_ms = _whole(table.get("watchdog_ms", 8000), LEAST_WATCHDOG_MS, MOST_WATCHDOG_MS, "watchdog_ms")
    else:
        found.watchdog_ms = 0
    found.must_be_checked = _one_of(table, "checksum", ("optional", "required"), "") == "required"
    one_character = table.get("one_character", True)
    if not isinstance(one_character, bool):
        raise SettingsError("one_character: true or false")
    found.one_character = one_character
    wires = table.get("i2c")
    if wires is not None:
        found.i2c = _i2c(wires)
    if found.i2c is None and any(outlet.meter and "ina219" in outlet.meter for outlet in found.outlets):
        raise SettingsError("i2c: an INA219 needs it")
    _no_pin_twice(found)


def _no_pin_twice(found: Settings) -> None:
    taken: dict[int, str] = {}
    wires = [] if found.i2c is None else [("i2c", found.i2c["sda"]), ("i2c", found.i2c["scl"])]
    for number, outlet in enumerate(found.outlets):
        wires += [(f"outlets[{number}]", pin) for pin in outlet.pins()]
    for where, pin in wires:
        if pin in taken:
            raise SettingsError(f"{where}: pin {pin} is that of {taken[pin]}")
        taken[pin] = where


def _i2c(table: object) -> dict[str, int]:
    if not isinstance(table, dict):
        raise SettingsError("i2c: is no object")
    _known(table, "i2c", ("id", "sda", "scl"))
    sda, scl = _pin(table, "sda", "i2c"), _pin(table, "scl", "i2c")
    return {"id": _whole(table.get("id", 0), 0, 1, "i2c.id"), "sda": sda, "scl": scl}


def _meter(table: object, where: str) -> dict[str, float] | None:
    """`{"ina219": address, "milliohm": shunt}`, or `{"adc": pin, "zero_mv": …, "mv_per_a": …, "volts": …}`."""
    if table is None:
        return None
    if not isinstance(table, dict):
        raise SettingsError(f"{where}: is no object")
    if "ina219" in table:
        _known(table, where, ("ina219", "milliohm"))
        address = _whole(table["ina219"], 0x40, 0x4F, where + ".ina219")
        return {"ina219": address, "milliohm": _number(table.get("milliohm", 100), where + ".milliohm")}
    _known(table, where, ("adc", "zero_mv", "mv_per_a", "volts"))
    pin = _pin(table, "adc", where)
    if pin not in ADC_PINS:
        raise SettingsError(f"{where}.adc: one of {', '.join(str(pin) for pin in ADC_PINS)}")
    zero = table.get("zero_mv", 0)
    if isinstance(zero, bool) or not isinstance(zero, (int, float)) or not 0 <= zero <= 3300:
        raise SettingsError(f"{where}.zero_mv: 0 to 3300")
    found = {"adc": float(pin), "zero_mv": float(zero)}
    for key in ("mv_per_a", "volts"):
        found[key] = _number(table.get(key), f"{where}.{key}")
    return found


def _known(table: dict[str, object], where: str, keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise SettingsError(f"{where + '.' if where else ''}{key}: known are {', '.join(keys)}")


def _pin(table: dict[str, object], key: str, where: str) -> int:
    return _whole(table.get(key), 0, LAST_PIN, f"{where}.{key}")


def _whole(value: object, least: int, most: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SettingsError(f"{where}: a whole number from {least} to {most}")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 100000:
        raise SettingsError(f"{where}: a number above 0")
    return float(value)


def _one_of(table: dict[str, object], key: str, words: tuple[str, ...], where: str) -> str:
    """The first of `words` where there is none."""
    value = table.get(key, words[0])
    if value not in words:
        raise SettingsError(f"{where + '.' if where else ''}{key}: one of {', '.join(words)}")
    return str(value)
