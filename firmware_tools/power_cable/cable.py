"""The cable itself, without I/O: obeys both protocols, shows phases on LEDs, and remembers.

What it switches, lights and remembers with is an `edge.Edge`.
"""

from .edge import Edge
from .keeping import Flash, kept_word
from .lines import CHARACTER, LINE, PROTOCOL, VERSION, LineError, Receiver, answer, request
from .settings import Settings

MODEL = "boardhand-cable"
LINES_ONLY_MS = 60_000
"""So long after a good line single characters mean nothing: they are the rest of a line whose `@` was lost."""
LED_BOOTING, LED_READY, LED_FAULT = 1, 2, 4
LED_WORDS = {"dark": 0, "coming": LED_BOOTING, "ready": LED_READY, "fault": LED_FAULT}
SLOW_MS, FAST_MS = 500, 100
"""How long a single LED is on, and then off: coming up; fault."""


class Cable:
    """One cable. `bits` is its state as it was told: bit 0 is outlet 1."""

    def __init__(self, settings: Settings, hardware: Edge, bits: int, stored: int | None) -> None:
        self._settings = settings
        self._hardware = hardware
        self._receiver = Receiver()
        self._flash = Flash(stored)
        self._stores = any(outlet.at_power_on == "last" for outlet in settings.outlets)
        self._leds = [0] * len(settings.outlets)
        self._lines = self._refused = self._meter_faults = 0
        self._line_ms: int | None = None
        self._now_ms = 0
        self.bits = bits

    def take(self, data: bytes, now_ms: int) -> bytes:
        """Obey what came; returns what is to be said."""
        said = b""
        self._now_ms = now_ms
        for kind, content in self._receiver.feed(data, now_ms):
            if kind == CHARACTER:
                said += self._character(content)
            elif kind == LINE:
                said += self._line(content)
            else:
                self._refused += 1
                said += answer("-", "error line too long", checked=False)
        return said

    def tick(self, now_ms: int) -> None:
        """What time brings: LEDs that blink, and the flash. Call it many times a second."""
        for number, leds in enumerate(self._leds):
            if len(self._settings.outlets[number].leds) == 1:
                self._hardware.set_led(number, 0, lit(leds, now_ms))
        if self._stores and self._flash.due(self.bits, now_ms):
            self._hardware.store(self.bits)
            self._flash.written(self.bits, now_ms)

    # --- one character -------------------------------------------------------------------------------------------

    def _character(self, content: bytes) -> bytes:
        """For outlet 1: bit 0 is power, bits 1 to 3 are LEDs; `?` is answered with the digit, its power read back."""
        recent = self._line_ms is not None and self._now_ms - self._line_ms < LINES_ONLY_MS
        if recent or not self._settings.one_character or not self._settings.outlets:
            self._receiver.noise += 1
            return b""
        if content == b"?":
            power = 1 if self._hardware.outlet_on(0) else 0
            return f"{power | self._leds[0] << 1:x}".encode()
        digit = int(content.decode(), 16)
        self._switch(0, bool(digit & 1))
        self._show(0, digit >> 1)
        return b""

    # --- lines ---------------------------------------------------------------------------------------------------

    def _line(self, content: bytes) -> bytes:
        checked = False
        tag = "-"
        try:
            tag, words, checked = request(content, self._settings.must_be_checked)
            self._line_ms = self._now_ms
            text = ("ok " + self._obey(words)).rstrip()
            self._lines += 1
        except LineError as error:
            self._refused += 1
            text = f"error {error.kind} {error.text}"
            checked = checked or error.checked
        return answer(tag, text, checked)

    def _obey(self, words: list[str]) -> str:
        verb = words[0] if words else ""
        verbs = {
            "id": self._id, "get": self._get, "set": self._set, "watts": self._watts, "led": self._led,
            "health": self._health, "restart": self._restart, "repl": self._repl,
        }  # fmt: skip
        if verb not in verbs:
            raise LineError("verb", "known are get health id led repl restart set watts")
        return verbs[verb](words[1:])

    def _id(self, words: list[str]) -> str:
        _no_more(words)
        outlets = self._settings.outlets
        sensed = sum(outlet.sense is not None for outlet in outlets)
        read = "sense" if outlets and sensed == len(outlets) else "mixed" if sensed else "pin"
        meters = sum(outlet.meter is not None for outlet in outlets)
        unique = self._hardware.unique_id
        return (
            f"model={MODEL} firmware={VERSION} protocol={PROTOCOL} id={unique} outlets={len(outlets)} "
            f"read={read} meters={meters}"
        )

    def _get(self, words: list[str]) -> str:
        read = self._hardware.outlet_on
        return " ".join(f"{number + 1}=" + ("on" if read(number) else "off") for number in self._meant(words))

    def _set(self, words: list[str]) -> str:
        if len(words) != 2 or words[1] not in ("on", "off"):
            raise LineError("value", "set OUTLET on, or set OUTLET off")
        (number,) = self._meant(words[:1])
        self._switch(number, words[1] == "on")
        return ""

    def _watts(self, words: list[str]) -> str:
        found = []
        for number in self._meant(words):
            try:
                watts = self._hardware.watts(number)
            except OSError:  # a meter that does not answer must not keep the others from answering
                self._meter_faults += 1
                watts = None
            said = "-" if watts is None else f"{watts:.3f}"  # MicroPython has no f-string inside another
            found.append(f"{number + 1}={said}")
        return " ".join(found)

    def _led(self, words: list[str]) -> str:
        if len(words) != 2 or words[1] not in LED_WORDS:
            raise LineError("value", "led OUTLET, and dark, coming, ready or fault")
        (number,) = self._meant(words[:1])
        self._show(number, LED_WORDS[words[1]])
        return ""

    def _health(self, words: list[str]) -> str:
        _no_more(words)
        cause = self._hardware.cause
        return (
            f"up_s={self._now_ms // 1000} cause={cause} lines={self._lines} refused={self._refused} "
            f"noise={self._receiver.noise} meter_faults={self._meter_faults}"
        )

    def _restart(self, words: list[str]) -> str:
        _no_more(words)
        self._hardware.restart(repl=False)
        return ""

    def _repl(self, words: list[str]) -> str:
        _no_more(words)
        self._hardware.restart(repl=True)
        return ""

    def _meant(self, words: list[str]) -> list[int]:
        """The outlets that are named, from 0; all where none is."""
        outlets = self._settings.outlets
        if self._settings.problem:
            raise LineError("settings", self._settings.problem)
        if not words:
            return list(range(len(outlets)))
        _no_more(words[1:])
        if words[0] not in [str(number + 1) for number in range(len(outlets))]:
            raise LineError("outlet", f"there are outlets 1 to {len(outlets)}")
        return [int(words[0]) - 1]

    # --- doing ---------------------------------------------------------------------------------------------------

    def _switch(self, number: int, on: bool) -> None:
        self.bits = self.bits | 1 << number if on else self.bits & ~(1 << number)
        # Kept first: a reset between the two then brings what was asked for.
        self._hardware.keep(kept_word(self.bits))
        self._hardware.switch(number, on)

    def _show(self, number: int, leds: int) -> None:
        self._leds[number] = leds
        pins = self._settings.outlets[number].leds
        if len(pins) == 3:
            for place in range(3):
                self._hardware.set_led(number, place, bool(leds >> place & 1))


def lit(leds: int, now_ms: int) -> bool:
    """Whether a single LED that stands for all three is on now."""
    if leds & LED_FAULT:
        return now_ms // FAST_MS % 2 == 0
    if leds & LED_READY:
        return True
    return bool(leds & LED_BOOTING) and now_ms // SLOW_MS % 2 == 0


def _no_more(words: list[str]) -> None:
    if words:
        raise LineError("value", "there is a word too many")
